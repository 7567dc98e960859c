"""How weights move: Muon for the matrices between layers with AdamW for all else, or AdamW."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.models import FramesNet, WaveformUNet
from trainer.optimizer_config import OptimizerConfig

_MUON_SIDE_BETAS = (0.9, 0.95)
_ADAMW_BETA2 = 0.999


class Optimizer:
    """One or two torch optimizers, stepped and saved as one, with clipping before each step."""

    def __init__(
        self, parts: Mapping[str, torch.optim.Optimizer], *, clip_norm: float | None
    ) -> None:
        self._parts = dict(parts)
        self._clip_norm = float("inf") if clip_norm is None else clip_norm
        groups = (group for part in self._parts.values() for group in part.param_groups)
        self._parameters = [p for group in groups for p in group["params"]]

    def step(self) -> Tensor:
        """Clip the gradients to the norm allowed, update, clear; return the norm before clipping.

        A non-finite norm leaves the weights as they are: the caller ends the trial.
        """
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if torch.isfinite(norm):
            for part in self._parts.values():
                part.step()
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)
        return norm

    def is_clipped(self, norm: float) -> bool:
        """Return whether a gradient of this norm was made smaller."""
        return norm > self._clip_norm

    def learning_rates(self) -> dict[str, float]:
        """Return the rate in use of each part, by name (`lr`, `adamw_lr`)."""
        return {name: part.param_groups[0]["lr"] for name, part in self._parts.items()}

    def state_dict(self) -> dict[str, object]:
        """Return the state of every part, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, dict[str, object]]) -> None:
        """Take up a saved state."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def build_optimizer(model: WaveformUNet | FramesNet, config: OptimizerConfig) -> Optimizer:
    """Build the configured optimizer over all of a net's weights.

    Muon (Jordan et al. 2024) takes hidden matrices only: `split_parameters` says which. Its update
    is scaled by sqrt(max(1, rows / columns)), torch's `original`, as in the Muon of its author.
    """
    assert config.lr is not None and config.momentum is not None
    if config.name == "adamw":
        adamw = torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            betas=(config.momentum, _ADAMW_BETA2),
            weight_decay=config.weight_decay,
        )
        return Optimizer({"lr": adamw}, clip_norm=config.clip_norm)
    matrices, others = split_parameters(model)
    assert config.adamw_lr is not None
    muon = torch.optim.Muon(
        matrices,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        adjust_lr_fn="original",
    )
    adamw = torch.optim.AdamW(
        others, lr=config.adamw_lr, betas=_MUON_SIDE_BETAS, weight_decay=config.weight_decay
    )
    return Optimizer({"lr": muon, "adamw_lr": adamw}, clip_norm=config.clip_norm)


def split_parameters(
    model: WaveformUNet | FramesNet,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (matrices between layers, everything else).

    Everything else: the layers that touch audio, depthwise kernels, norms and biases. A net's
    matrices are Linear weights [out, in * factor] already, so none needs viewing for Muon.
    """
    edges = {id(p) for layer in model.edges() for p in layer.parameters()}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in edges]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in model.parameters() if id(p) not in chosen]
