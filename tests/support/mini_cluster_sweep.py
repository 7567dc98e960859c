"""A sweep for a cluster whose GPUs are only Ray's belief: their memory is told.

A report takes a while, as a real net's does: on a fast machine, too, there is a trial on every
machine that is lost.
"""

import time

from search_spaces import lr_momentum
from sweeps.engine.gpu_memory import CONTEXT_BYTES, GpuMemory
from sweeps.engine.run import Sweep, main

REPORT_S = 1.5


def read_peak(row):
    """Return what a trial has taken of its GPU."""
    time.sleep(REPORT_S)
    return CONTEXT_BYTES // 10


SWEEP = Sweep(
    name="mini_cluster",
    space=lr_momentum.suggest,
    stops_early=False,
    gpu_memory=GpuMemory(
        total_bytes=lambda: 16 * CONTEXT_BYTES,  # a tiny net and CUDA's own take an eighth of it
        peak_bytes=read_peak,
    ),
)

if __name__ == "__main__":
    main(SWEEP)
