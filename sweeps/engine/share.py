"""A trial's share of a GPU, on the trial's worker: kept to, and given up when it is too small."""

import torch

from sweeps.engine.gpu_memory import CONTEXT_BYTES, GpuMemory
from trainer.journal import Row
from trainer.train import StopTraining

FULL = 0.9
"""A trial whose peak passes so much of its share gets a larger one."""


class Outgrown(StopTraining):
    """A trial needs more than its share of a GPU."""


class Share:
    """A trial's share of a GPU, on the trial's worker."""

    def __init__(self, share_bytes: int | None, memory: GpuMemory) -> None:
        """Watch over a share of so many bytes; 0: there is no larger one to go to; None: it is not
        on a GPU."""
        self._bytes = share_bytes
        self._memory = memory
        self.outgrown_bytes = 0
        """What the trial's tensors need at least, where that is more than its share has."""

    def fence(self) -> None:
        """Let torch's allocator refuse what would be taken from the GPU's other trials."""
        if self._bytes and torch.cuda.is_available():
            allowed = max(0, self._bytes - CONTEXT_BYTES) / self._memory.total_bytes()
            torch.cuda.set_per_process_memory_fraction(allowed)

    def read(self, row: Row) -> int:
        """Return the most memory that the trial has taken of its device, at a report."""
        is_cpu = self._bytes is None
        return int(row["peak_memory_bytes"]) if is_cpu else self._memory.peak_bytes(row)

    def check(self, peak_bytes: int) -> None:
        """Raise Outgrown where the trial has taken so much that the share is nearly full."""
        if self._bytes and peak_bytes + CONTEXT_BYTES > FULL * self._bytes:
            self.outgrown_bytes = peak_bytes
            raise Outgrown(f"needs {peak_bytes / 1e9:.2f} GB")

    def note_out_of_memory(self) -> None:
        """Note that the allocator refused: more than the share is needed."""
        self.outgrown_bytes = self._bytes or 0
