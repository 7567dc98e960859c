"""Which commit a folder of source is at."""

import subprocess
from pathlib import Path

UNKNOWN = "unknown"


def commit_of(folder: Path) -> str:
    """Return the commit of a folder in a git checkout, with `+changes` when there are any.

    Without git, or outside a checkout, the commit is `unknown`.
    """
    try:
        changes = "+changes" if _git(folder, "status", "--porcelain") else ""
        return _git(folder, "rev-parse", "HEAD") + changes
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def count_changes(folder: Path) -> int:
    """Return how many files differ from the commit, or are new; 0 outside a git checkout."""
    try:
        return len(_git(folder, "status", "--porcelain").splitlines())
    except (OSError, subprocess.CalledProcessError):
        return 0


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
