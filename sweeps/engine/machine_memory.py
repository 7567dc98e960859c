"""How much memory there is for this process: the machine's, or what its container may take."""

from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


def total_bytes(*, mine: Path = _MINE, cgroups: Path = _CGROUPS) -> int:
    """Return the least of the machine's memory and the limits of the control groups that this
    process is in."""
    return min([psutil.virtual_memory().total, *_limits(mine, cgroups)])


def _limits(mine: Path, cgroups: Path) -> Iterator[int]:
    """Yield the limits there are, of version 2 (`0::/path`) and 1 (`9:memory:/path`)."""
    for line in _read(mine).splitlines():
        _, kinds, inside = line.split(":", 2)
        if kinds == "":
            tree, name = cgroups, "memory.max"
        elif "memory" in kinds.split(","):
            tree, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        path = Path(inside.lstrip("/"))
        for folder in (path, *path.parents):  # a container sees the root of its own alone
            text = _read(tree / folder / name).strip()
            if text.isdecimal():  # else it is `max`
                yield int(text)


def _read(file: Path) -> str:
    """Return a file's text, empty where there is none: on macOS, say."""
    try:
        return file.read_text()
    except OSError:
        return ""
