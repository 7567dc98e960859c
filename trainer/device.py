"""Where the arithmetic runs: the device, its memory, and what must be equal for equal results."""

import platform
from importlib.metadata import version
from pathlib import Path

import psutil
import torch


def resolve_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises ValueError when it does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    allowed = ["auto", "cpu", *_accelerators()]
    if name not in allowed:
        raise ValueError(f"device={name}; must be one of {', '.join(allowed)} on this machine")
    return torch.device(name)


def describe_environment(device: torch.device) -> dict[str, object]:
    """Return all that must be equal for a trial to repeat to the last bit, in JSON's types."""
    return {
        "device_kind": device.type,
        "device_name": _device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "torchaudio", "numpy")},
    }


class PeakMemory:
    """The most memory in use since construction: on a GPU its allocator's peak, else the largest
    resident size of this process.

    Linux keeps that size itself; a newer PeakMemory makes it begin again, for older ones too.
    Elsewhere it is the largest among the moments it was sampled.
    """

    def __init__(self, device: torch.device, *, proc: Path = Path("/proc/self")) -> None:
        self._device = device
        self._process = psutil.Process()
        self._largest_sampled = 0
        self._proc = proc
        self._is_kept_by_kernel = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._is_kept_by_kernel = _begin_high_water_mark(proc)

    def sample(self) -> None:
        """Look once, where nobody looks all the time."""
        if self._device.type != "cuda" and not self._is_kept_by_kernel:
            resident = self._process.memory_info().rss
            self._largest_sampled = max(self._largest_sampled, resident)

    @property
    def peak_bytes(self) -> int:
        """Return the peak so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if self._is_kept_by_kernel:
            return _read_high_water_mark(self._proc)
        return self._largest_sampled


def _begin_high_water_mark(proc: Path) -> bool:
    """Make Linux forget the largest resident size so far; return whether it can (proc(5))."""
    try:
        (proc / "clear_refs").write_text("5")
        return _read_high_water_mark(proc) > 0
    except (OSError, StopIteration):
        return False


def _read_high_water_mark(proc: Path) -> int:
    lines = (proc / "status").read_text().splitlines()
    mark = next(line for line in lines if line.startswith("VmHWM:"))  # "VmHWM:  568372 kB"
    return int(mark.split()[1]) * 1024


def _accelerators() -> list[str]:
    names = ["mps"] if torch.backends.mps.is_available() else []
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return names


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
