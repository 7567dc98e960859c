"""What is read of a GPU's memory, and what of it is not a trial's to use.

Machines without a GPU can be told to read another one: two functions of the same shape.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CONTEXT_BYTES = 600_000_000
"""What CUDA and its libraries take of a GPU for each process, beside what torch's allocator gives
out: a guess on the safe side, NVIDIA states none."""


def _total_bytes() -> int:
    import torch  # on the worker: whoever only wants --help need not wait for it

    return torch.cuda.get_device_properties(0).total_memory


def _peak_bytes(row: Mapping[str, Any]) -> int:
    return int(row["peak_memory_bytes"])


@dataclass(frozen=True, kw_only=True)
class GpuMemory:
    """What is read of a GPU."""

    total_bytes: Callable[[], int] = _total_bytes
    """Of the one that this process sees."""
    peak_bytes: Callable[[Mapping[str, Any]], int] = _peak_bytes
    """The most that a trial's tensors took, by a row of its journal."""
