"""What a trial is placed on, and how many fit at once."""

import logging
from dataclasses import dataclass

import psutil

from sweeps.engine.options import SweepOptions

CPUS_PER_TRIAL = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What Ray has to place trials on."""

    cpus: int
    gpus: float
    gpu_bytes: int
    """Memory of a GPU; 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each trial gets, and how many run at once."""

    cpus: int
    gpus: float
    slots: int
    bytes_per_trial: int
    """Memory that a trial may take: its share of a GPU's, else of this machine's."""

    def __str__(self) -> str:
        share = f"{self.gpus:g} GPU and " if self.gpus else ""
        return f"{self.slots} at a time, each on {share}{self.cpus} CPU"


def place(options: SweepOptions, machines: Machines) -> Placement:
    """Decide on a placement. Raises ValueError when no trial would ever fit."""
    gpus = options.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if machines.gpus else 0.0
    if not 0 <= gpus <= machines.gpus:
        allowed = f"from 0 to {machines.gpus:g}, the GPUs that are there"
        raise ValueError(f"gpus-per-trial={gpus:g}; must be {allowed}")
    fitting = machines.cpus // CPUS_PER_TRIAL
    if gpus:
        fitting = min(fitting, int(machines.gpus / gpus))
    slots = max(1, min(fitting, options.concurrency or fitting))
    if options.concurrency is not None and options.concurrency > slots:
        logger.warning("concurrency=%d: no more than %d fit at once", options.concurrency, slots)
    total = min(1.0, gpus) * machines.gpu_bytes if gpus else psutil.virtual_memory().total / slots
    return Placement(cpus=CPUS_PER_TRIAL, gpus=gpus, slots=slots, bytes_per_trial=int(total))
