"""What a trial is placed on, and how many fit at once."""

import logging
from dataclasses import dataclass, replace

from sweeps.engine.options import SweepOptions

CPUS_PER_TRIAL = 1

SHARES = (0.125, 0.25, 0.5, 1.0)
"""What of a GPU a trial may get. Ray packs these without a rest, and workers are reused by size."""

MARGIN = 0.25
"""So much more than its estimate a trial gets: estimates were seen to be 10% off."""

HOST_BYTES = 3 * 10**9
"""Of its machine's memory for a trial on a GPU: Python, CUDA's libraries, recordings being read."""

MEMORY_STEP_BYTES = 512 * 2**20
"""Memory is asked for in such steps: a worker is reused by trials that ask for just as much."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What Ray has to place trials on, on one machine."""

    cpus: int
    gpus: float
    gpu_bytes: int
    """Memory of one of its GPUs; 0 where there is none."""
    memory_bytes: int
    """What Ray lets trials ask for: less than the machine has."""

    def holds(self, request: "Request") -> int:
        """Return how many such trials fit at once."""
        counts = [self.cpus // request.cpus, self.memory_bytes // max(1, request.memory_bytes)]
        if 0 < request.gpus <= 1:  # no trial lies across two GPUs
            counts.append(int(self.gpus) * int(1 / request.gpus))
        elif request.gpus:
            counts.append(int(self.gpus / request.gpus))
        return min(counts)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """All nodes there are."""

    nodes: tuple[Node, ...]

    @property
    def gpus(self) -> float:
        """Return how many GPUs there are."""
        return sum(node.gpus for node in self.nodes)

    @property
    def gpu_bytes(self) -> int:
        """Return the memory of the smallest GPU: Ray may choose any. 0 where there is none."""
        return min((node.gpu_bytes for node in self.nodes if node.gpus), default=0)

    @property
    def memory_bytes(self) -> int:
        """Return the most memory that a trial can ask for."""
        return max(node.memory_bytes for node in self.nodes)

    @property
    def all_memory_bytes(self) -> int:
        """Return what all trials together can ask for."""
        return sum(node.memory_bytes for node in self.nodes)

    def hold(self, request: "Request") -> int:
        """Return how many such trials fit at once."""
        return sum(node.holds(request) for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a trial asks Ray for."""

    cpus: int
    gpus: float
    memory_bytes: int

    def __str__(self) -> str:
        share = f"{self.gpus:g} GPU and " if self.gpus else ""
        return f"{share}{self.cpus} CPU"

    def to_bundle(self) -> dict[str, float]:
        """Return it in Ray's words."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What trials get, and how many run at once."""

    machines: Machines
    gpus: float | None
    """Of each trial, where that was asked for; None: by what each needs."""
    typical: Request
    """What the setting's own configuration asks for, with nothing varied."""
    concurrency: int | None = None
    """The most that were asked for at once; None: as many as fit."""

    def __str__(self) -> str:
        return f"{self.slots} at a time, each on {self.typical}" + (
            " (more or less of a GPU by what its net needs)" if self.shares_by_need else ""
        )

    @property
    def slots(self) -> int:
        """Return how many typical trials run at once."""
        fitting = max(1, self.machines.hold(self.typical))
        return min(fitting, self.concurrency or fitting)

    @property
    def most(self) -> int:
        """Return how many of the smallest trials run at once."""
        smallest = _request(self.gpus, self.machines, 0)
        fitting = max(1, self.machines.hold(self.typical), self.machines.hold(smallest))
        return min(fitting, self.concurrency or fitting)

    @property
    def shares_by_need(self) -> bool:
        """Whether trials get different shares of GPUs."""
        return self.gpus is None and self.machines.gpus > 0

    @property
    def uses_gpus(self) -> bool:
        """Whether trials run on GPUs."""
        return self.typical.gpus > 0

    def request(self, needed_bytes: int) -> Request:
        """Return what a trial asks for that needs so much of a GPU's memory, else of a machine's.

        One that needs more than there is asks for all of it.
        """
        return _request(self.gpus, self.machines, needed_bytes)

    def on(self, machines: Machines) -> "Placement":
        """Return the same on the machines that are there now.

        Once the last GPU has gone, trials that need one wait for another: nothing changes.
        """
        if self.uses_gpus and not machines.gpus:
            return self
        return replace(self, machines=machines)


def place(options: SweepOptions, machines: Machines, *, needed_bytes: int) -> Placement:
    """Decide on a placement; the setting's own configuration needs so much memory.

    Raises ValueError when no trial would ever fit.
    """
    gpus = options.gpus_per_trial
    largest = max(node.gpus for node in machines.nodes)
    if gpus is not None and not 0 <= gpus <= largest:
        allowed = f"from 0 to {largest:g}, the GPUs that a machine has"
        raise ValueError(f"gpus-per-trial={gpus:g}; must be {allowed}")
    placement = Placement(
        machines=machines,
        gpus=gpus,
        typical=_request(gpus, machines, needed_bytes),
        concurrency=options.concurrency,
    )
    asked = options.concurrency
    if asked is not None and asked > placement.slots:
        logger.warning("concurrency=%d: no more than %d fit at once", asked, placement.slots)
    return placement


def _request(gpus: float | None, machines: Machines, needed_bytes: int) -> Request:
    if gpus is None:
        gpus = _share_for(needed_bytes, machines.gpu_bytes) if machines.gpus else 0.0
    memory = HOST_BYTES if gpus else needed_bytes * (1 + MARGIN)
    steps = -(-memory // MEMORY_STEP_BYTES)
    return Request(
        cpus=CPUS_PER_TRIAL,
        gpus=gpus,
        memory_bytes=min(int(steps) * MEMORY_STEP_BYTES, _largest_bytes(machines, gpus)),
    )


def _share_for(needed_bytes: int, gpu_bytes: int) -> float:
    with_margin = needed_bytes * (1 + MARGIN)
    return next((share for share in SHARES if with_margin <= share * gpu_bytes), SHARES[-1])


def _largest_bytes(machines: Machines, gpus: float) -> int:
    """Return the most memory that a trial can ask a node for: it would wait for more for ever."""
    able = [n for n in machines.nodes if n.cpus >= CPUS_PER_TRIAL and n.gpus >= min(gpus, 1)]
    return max(node.memory_bytes for node in able or machines.nodes)
