"""What memory a trial may take, and which configurations would need more than that.

Such a trial is infeasible before it has cost a second of a device: its training is rehearsed on
tensors without values (trainer/memory.py).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from trainer.config import TrainConfig
from trainer.memory import estimate_step_bytes
from trainer.optimizer_config import OptimizerConfig


@dataclass(kw_only=True)
class Capacity:
    """What one trial may take."""

    bytes_per_trial: int
    is_gpu: bool
    """Whether that is a GPU's memory; else it is a share of the machine's, Python included."""
    _known: dict[TrainConfig, int] = field(default_factory=dict)
    _ran_out: set[TrainConfig] = field(default_factory=set)

    @property
    def device(self) -> str:
        """Return what running out of memory says something about."""
        return f"{'GPU' if self.is_gpu else 'machine'}, {self.bytes_per_trial} bytes a trial"

    def note_out_of_memory(self, config: TrainConfig) -> None:
        """Remember that training a configuration ran out of memory here, whatever was estimated."""
        self._ran_out.add(_shape_of(config))

    def find_misfit(self, config: TrainConfig) -> str:
        """Return why a trial cannot fit, in one line; empty when it can."""
        if _shape_of(config) in self._ran_out:
            return "a trial of this shape ran out of memory here; not begun"
        needed = self._needed_bytes(config)
        if needed <= self.bytes_per_trial:
            return ""
        place = "its share of a GPU" if self.is_gpu else "its share of this machine"
        return (
            f"would need about {needed / 1e9:.1f} GB, and {place} has "
            f"{self.bytes_per_trial / 1e9:.1f} GB; not begun"
        )

    def _needed_bytes(self, config: TrainConfig) -> int:
        shape = _shape_of(config)
        if shape not in self._known:
            self._known[shape] = estimate_step_bytes(shape)
        process_bytes = 0 if self.is_gpu else psutil.Process().memory_info().rss
        return self._known[shape] + process_bytes


def _shape_of(config: TrainConfig) -> TrainConfig:
    """Return what all configurations share that take the same memory."""
    weights: dict[str, Any] = {n: float(w > 0) for n, w in config.loss.weights.items()}
    return replace(
        config,
        loss=replace(config.loss, **weights),
        optimizer=OptimizerConfig(name=config.optimizer.name),
        seed=0,
    )
