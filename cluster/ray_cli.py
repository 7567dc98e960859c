"""Ray's own command line: where it is, what it is run with, and what it says when it fails."""

import os
import sys
from pathlib import Path

from cluster import environment


class ClusterFailed(RuntimeError):
    """Ray did not start, or did not take a job; the text is meant for the user."""


def ray_command() -> str:
    """Return the path of the `ray` command beside this Python."""
    path = Path(sys.executable).with_name("ray")
    if not path.exists():
        raise ClusterFailed(f"no `ray` beside {sys.executable}: install unshift[sweep]")
    return str(path)


def own_environment() -> dict[str, str]:
    """Return this process's variables without those that lead to another head."""
    # Each of these would lead to another head; RAY_ADDRESS even beats `--address`.
    foreign = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS")
    own = {name: value for name, value in os.environ.items() if name not in foreign}
    return environment.DEFAULTS | own


def tail(text: str) -> str:
    """Return the last lines of a log."""
    return "\n".join(text.splitlines()[-20:])
