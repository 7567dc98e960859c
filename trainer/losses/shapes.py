"""What every term of the loss is handed: two batches of clips of one shape."""

from torch import Tensor


def check_pair(estimate: Tensor, target: Tensor) -> None:
    """Raise ValueError unless estimate and target are of one shape [batch, sample]."""
    if estimate.ndim != 2 or estimate.shape != target.shape:
        shapes = f"{list(estimate.shape)} and {list(target.shape)}"
        raise ValueError(f"estimate and target={shapes}; must be one shape [batch, sample]")
