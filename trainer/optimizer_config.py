"""The fields of the optimizer: what each means, its range and its only default."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.fields import require, require_from_zero, require_positive

OptimizerName = typing.Literal["muon_adamw", "adamw", "psgd"]
Schedule = typing.Literal["constant", "cosine"]

_RATES: Mapping[str, Mapping[str, float]] = {
    "muon_adamw": {"lr": 5e-3, "momentum": 0.95},  # output27's, the best of the research log
    "adamw": {"lr": 3e-4, "momentum": 0.9},
    "psgd": {"lr": 3e-4, "momentum": 0.9},  # output39's
}
"""What an optimizer has where a field is not given."""

_ADAMW_SHARE = 0.1
"""The log's ratio of AdamW's rate to Muon's."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights move."""

    name: OptimizerName = "muon_adamw"
    """`muon_adamw`: Muon for the matrices between layers, AdamW for all else. `adamw`: AdamW.
    `psgd`: preconditioned SGD with Kronecker factors, for all weights."""
    lr: float | None = None
    """Learning rate of the matrices (Muon's), or of everything with the others. Unless given, 5e-3
    with Muon, 3e-4 with the others."""
    adamw_lr: float | None = None
    """Learning rate of AdamW beside Muon; a tenth of `lr` unless given, the log's ratio."""
    momentum: float | None = None
    """Muon's and PSGD's momentum, AdamW's beta1. Unless given, 0.95 with Muon, 0.9 otherwise."""
    preconditioner_probability: float | None = None
    """Share of steps in which PSGD updates its preconditioner; unless given, every step at first,
    fewer later, by heavyball's schedule."""
    weight_decay: float = 0.0
    """Decoupled weight decay, per step and learning rate."""
    clip_norm: float | None = None
    """Largest gradient norm over all weights; none means no clipping."""
    warmup_steps: int = 0
    """Steps over which the rates rise from nothing, linearly."""
    schedule: Schedule = "constant"
    """Of the rates after the warm-up; `cosine` falls to zero after the last step."""

    def __post_init__(self) -> None:
        for name, value in _RATES[self.name].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        assert self.lr is not None and self.momentum is not None
        require_positive("optimizer.lr", self.lr)
        self._check_adamw_lr(self.lr)
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, ">= 0 and < 1")
        self._check_preconditioner_probability()
        require_from_zero("optimizer.weight_decay", self.weight_decay)
        require_positive("optimizer.clip_norm", self.clip_norm)
        require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, ">= 0")

    def _check_adamw_lr(self, lr: float) -> None:
        if self.name == "muon_adamw" and self.adamw_lr is None:
            object.__setattr__(self, "adamw_lr", lr * _ADAMW_SHARE)
        if self.name != "muon_adamw":
            only = f"null with optimizer.name={self.name}, whose rate is optimizer.lr"
            require(self.adamw_lr is None, "optimizer.adamw_lr", self.adamw_lr, only)
        require_positive("optimizer.adamw_lr", self.adamw_lr)

    def _check_preconditioner_probability(self) -> None:
        name, share = "optimizer.preconditioner_probability", self.preconditioner_probability
        if self.name != "psgd":
            require(share is None, name, share, f"null with optimizer.name={self.name}")
        require(share is None or 0 < share <= 1, name, share, "> 0 and <= 1")
