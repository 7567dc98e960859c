"""Weights as shares of the gradient, whatever the scale of each term."""

from collections.abc import Mapping

import torch
from torch import Tensor

_DECAY = 0.999
_TINY = 1e-12


class GradientBalancer:
    """EnCodec's loss balancer (Defossez et al. 2022, arXiv:2210.13438, equation 9).

    A term's gradient is divided by a running mean of its norm and multiplied by the term's share
    of all weights. The running mean is an exponential one, corrected for its start. Here the
    result is that each clip has a gradient of norm 1, about, whatever the batch size.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Take the weights of the terms; those of weight 0 have no share."""
        total = sum(weights.values())
        self._shares = {name: weight / total for name, weight in weights.items() if weight > 0}
        self._sums: dict[str, Tensor] = {}
        self._count = 0.0

    def scales(self, norms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what to multiply each term's gradient by, with this step's norms taken in."""
        self._count = self._count * _DECAY + 1
        for name, norm in norms.items():
            before = self._sums.get(name, torch.zeros_like(norm))
            self._sums[name] = before * _DECAY + norm
        return {
            name: share / (self._sums[name] / self._count + _TINY)
            for name, share in self._shares.items()
        }

    def state_dict(self) -> dict[str, object]:
        """Return the running means."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Take up saved running means."""
        sums, count = state["sums"], state["count"]
        assert isinstance(sums, dict) and isinstance(count, float)
        self._sums = {name: value.to(device) for name, value in sums.items()}
        self._count = count
