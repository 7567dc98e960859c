"""Machines that are only told, and what trials may take of them."""

from sweeps.engine.capacity import Capacity, Needs
from sweeps.engine.options import SweepOptions
from sweeps.engine.placement import Machines, Node, place

GB = 10**9


def machines(*nodes):
    """Return machines of (CPUs, GPUs, GB of a GPU, GB of memory) each; else one of two CPUs."""
    return Machines(
        nodes=tuple(
            Node(cpus=cpus, gpus=gpus, gpu_bytes=int(gpu_gb * GB), memory_bytes=int(memory_gb * GB))
            for cpus, gpus, gpu_gb, memory_gb in nodes or [(2, 0.0, 0, 16)]
        )
    )


def options(*, gpus_per_trial=None, concurrency=None):
    """Return options that say nothing but this."""
    given = dict.fromkeys(SweepOptions.__dataclass_fields__)
    return SweepOptions(**given | {"gpus_per_trial": gpus_per_trial, "concurrency": concurrency})


def gpu_capacity(*, gpu_bytes, gpus=1.0, needed_bytes=0, **asked):
    """Return what trials may take of a machine with many CPUs and these GPUs."""
    there = machines((64, gpus, gpu_bytes / GB, 1000))
    placement = place(options(**asked), there, needed_bytes=needed_bytes)
    return Capacity(placement=placement, needs=Needs(is_gpu=True))


def cpu_capacity(*nodes, memory_gb=16):
    """Return what trials may take of such machines without GPUs, or of one of two CPUs."""
    there = machines(*nodes or [(2, 0.0, 0, memory_gb)])
    placement = place(options(), there, needed_bytes=0)
    return Capacity(placement=placement, needs=Needs(is_gpu=False))
