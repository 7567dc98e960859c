"""A tree of processes of our own, and the end of all of it and of nothing else.

Linux and macOS.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

END_GRACE_S = 1.0
"""How long the processes of an ended head have to take their semaphores out of /dev/shm."""

# The root of a head's processes. On Linux whatever loses its parent below it stays below it (36:
# PR_SET_CHILD_SUBREAPER) and is reaped here: Ray waits for a stopped job until it is no zombie any
# more. Should the launcher be killed, its group goes with it (1: PR_SET_PDEATHSIG).
_ROOT = """
import ctypes, os, signal, sys

def prctl(*arguments):
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(*arguments, 0, 0, 0)

prctl(36, 1)
signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
prctl(1, signal.SIGTERM)
ray_start = os.fork()
if not ray_start:
    prctl(1, signal.SIGKILL)
    os.execv(sys.argv[1], sys.argv[1:])
ended = None
while ended != ray_start:
    ended, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def start_tree(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command as the root of a tree, in a session of its own: a Ctrl-C in the terminal is
    for this process alone."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ROOT, *command],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )


def end_tree(root: subprocess.Popen[bytes]) -> None:
    """End root and every process below it, or of its session, and nothing else."""
    if root.poll() is None:
        root.send_signal(signal.SIGSTOP)  # it would end with `ray start`, before the others
    _signal_members(root.pid, signal.SIGTERM)
    patience = time.monotonic() + END_GRACE_S
    while _members(root.pid) and time.monotonic() < patience:
        time.sleep(0.02)
    kill_tree(root)


def kill_tree(root: subprocess.Popen[bytes]) -> None:
    """Kill root and every process below it, or of its session, and nothing else."""
    patience = time.monotonic() + END_GRACE_S
    while _members(root.pid) and time.monotonic() < patience:
        _signal_members(root.pid, signal.SIGKILL)
        time.sleep(0.02)
    root.kill()
    root.wait()


def _signal_members(root: int, number: signal.Signals) -> None:
    for pid in _members(root):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _members(root: int) -> set[int]:
    """Return the living processes below root or in the session that it leads, without root."""
    parents = dict(_processes())
    members = {root} | {pid for pid in parents if _session(pid) == root}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members - {root}


def _processes() -> Iterator[tuple[int, int]]:
    """Yield (process, parent) of everything that lives, zombies left out."""
    if sys.platform != "linux":
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
        for line in table.stdout.splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)
        return
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # "pid (name) state parent …", where the name may hold anything
            state, ppid = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                yield int(path.parent.name), int(ppid)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep what would interrupt this thread waiting until the block has ended."""
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
