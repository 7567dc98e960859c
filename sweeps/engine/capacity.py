"""What memory trials need, what they ask for, and which need more than there is.

A trial that cannot fit is infeasible before it has cost a second of a device: its training is
rehearsed on tensors without values (trainer/memory.py). What is measured of a trial is believed
rather than that, for all trials of its shape.
"""

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from sweeps.engine.gpu_memory import CONTEXT_BYTES
from sweeps.engine.machine_memory import total_bytes
from sweeps.engine.placement import CPUS_PER_TRIAL, Machines, Placement, Request
from trainer.config import TrainConfig
from trainer.memory import estimate_step_bytes
from trainer.optimizer_config import OptimizerConfig


@dataclass(kw_only=True)
class Needs:
    """How much memory configurations need, of a GPU or of a machine."""

    is_gpu: bool
    """Whether it is a GPU's memory, CUDA's own included; else a machine's, Python included."""
    _estimated: dict[TrainConfig, int] = field(default_factory=dict)
    _measured: dict[TrainConfig, int] = field(default_factory=dict)

    def of(self, config: TrainConfig) -> int:
        """Return the bytes that a configuration needs."""
        shape = shape_of(config)
        if shape in self._measured:
            return self._measured[shape] + (CONTEXT_BYTES if self.is_gpu else 0)
        if shape not in self._estimated:
            self._estimated[shape] = estimate_step_bytes(shape)
        around = CONTEXT_BYTES if self.is_gpu else psutil.Process().memory_info().rss
        return self._estimated[shape] + around

    def note_peak(self, config: TrainConfig, peak_bytes: int) -> None:
        """Believe what was measured: of a GPU what tensors took, else what the process took."""
        shape = shape_of(config)
        self._measured[shape] = max(peak_bytes, self._measured.get(shape, 0))


@dataclass(kw_only=True)
class Capacity:
    """What trials may take of the machines there are."""

    placement: Placement
    needs: Needs
    _ran_out: set[TrainConfig] = field(default_factory=set)

    @property
    def device(self) -> str:
        """Return what running out of memory says something about."""
        return f"{'GPU' if self.needs.is_gpu else 'machine'}, {self._most_bytes} bytes a trial"

    def request(self, config: TrainConfig) -> Request:
        """Return what a trial asks for."""
        return self.placement.request(self.needs.of(config))

    def share_bytes(self, request: Request) -> int | None:
        """Return a trial's share of a GPU in bytes, 0 where it can get no larger one, None where it
        is not on a GPU."""
        if not request.gpus:
            return None
        is_largest = not self.placement.shares_by_need or request.gpus >= 1
        return 0 if is_largest else int(request.gpus * self.placement.machines.gpu_bytes)

    def note_out_of_memory(self, config: TrainConfig) -> None:
        """Remember that training a configuration ran out of memory here, whatever was estimated."""
        self._ran_out.add(shape_of(config))

    def find_misfit(self, config: TrainConfig) -> str:
        """Return why a trial cannot fit, in one line; empty when it can."""
        if shape_of(config) in self._ran_out:
            return "a trial of this shape ran out of memory here; not begun"
        needed = self.needs.of(config)
        if needed <= self._most_bytes:
            return ""
        place = "its place on a GPU" if self.needs.is_gpu else "the largest machine"
        return (
            f"would need about {needed / 1e9:.1f} GB, and {place} has "
            f"{self._most_bytes / 1e9:.1f} GB; not begun"
        )

    @property
    def _most_bytes(self) -> int:
        """Return the most that a trial may take."""
        placement = self.placement
        if self.needs.is_gpu:
            share = 1.0 if placement.gpus is None else min(1.0, placement.gpus)
            return int(share * placement.machines.gpu_bytes)
        return _largest_machine_bytes(placement.machines)


def _largest_machine_bytes(machines: Machines) -> int:
    """Return the most memory of a machine that trials can run on, more than any while there is none
    yet.

    Ray tells of less memory than a machine has. Where the driver's is the only one, a trial between
    the two is tried, alone; of others nothing else is known.
    """
    told = [node.memory_bytes for node in machines.nodes if node.cpus >= CPUS_PER_TRIAL]
    if told and len(machines.nodes) == 1:
        told.append(total_bytes())
    return max(told, default=sys.maxsize)


def shape_of(config: TrainConfig) -> TrainConfig:
    """Return what all configurations share that take the same memory."""
    weights: dict[str, Any] = {n: float(w > 0) for n, w in config.loss.weights.items()}
    return replace(
        config,
        loss=replace(config.loss, **weights),
        optimizer=OptimizerConfig(name=config.optimizer.name),
        seed=0,
    )
