"""The commands of cluster/ on this machine: with other addresses, ports and folders."""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from tests_support.cluster_files import ROOT, SECRETS, image_environment

from cluster.processes import end_tree, kill_tree, start_tree

BIN = Path(sys.executable).parent


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Replace each old part by its new one. Raises ValueError for a part that is not there."""
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"{old!r} is not in {text!r}")
        text = text.replace(old, new)
    return text


def make_secrets(folder: Path) -> Path:
    """Run make-secrets.sh for a folder and return it."""
    variables = os.environ | {"UNSHIFT_SECRETS": str(folder)}
    subprocess.run(["sh", str(SECRETS)], env=variables, check=True, stdout=subprocess.DEVNULL)
    return folder


def variables(**own: str) -> dict[str, str]:
    """Return the image's environment, in which `python`, `ray` and `mlflow` are this one's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    source = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return inherited | image_environment() | {"PATH": path, "PYTHONPATH": source} | own


class Node:
    """A command that runs until its `with` block ends, with all its processes."""

    def __init__(
        self, script: str, *, env: Mapping[str, str], log: Path, inside: Sequence[str] = ()
    ) -> None:
        """Begin with a script of bash; `inside` are the words before a command of its host."""
        self._script, self._env, self._log = script, env, log
        self._inside = inside

    def __enter__(self) -> "Node":
        with self._log.open("wb") as output:
            bash = shutil.which("bash") or "/bin/bash"
            command = [*self._inside, bash, "-euc", self._script]
            self._root = start_tree(command, env=self._env, cwd=self._log.parent, output=output)
        return self

    def __exit__(self, *_: object) -> None:
        end_tree(self._root)

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut would."""
        kill_tree(self._root)

    def processes(self) -> list[psutil.Process]:
        """Return all its processes."""
        root = psutil.Process(self._root.pid)
        return [root, *root.children(recursive=True)]

    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._root.poll() is not None

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float = 90.0) -> None:
        """Return once it is ready. AssertionError, with its log, when it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            log = self._log.read_text(errors="replace")[-3000:]
            assert self._root.poll() is None, f"ended with {self._root.returncode}: {log}"
            assert time.monotonic() < deadline, f"not ready: {log}"
            time.sleep(0.2)


def knock(url: str, **headers: str) -> tuple[int, str]:
    """Return the status and the beginning of what a server answers, (0, "") where there is none."""
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read(100_000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(1000).decode(errors="replace")
    except OSError:
        return 0, ""
