"""A sweep for a cluster whose GPUs are only Ray's belief: their memory is told."""

from search_spaces import lr_momentum
from sweeps.engine.gpu_memory import CONTEXT_BYTES, GpuMemory
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(
    name="mini_cluster",
    space=lr_momentum.suggest,
    stops_early=False,  # so that there is a trial on every machine that is lost
    gpu_memory=GpuMemory(
        total_bytes=lambda: 16 * CONTEXT_BYTES,  # a tiny net and CUDA's own take an eighth of it
        peak_bytes=lambda row: CONTEXT_BYTES // 10,
    ),
)

if __name__ == "__main__":
    main(SWEEP)
