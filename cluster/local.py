"""One local Ray head of our own: its ports, its token, its folder, and its end.

Several live side by side on a machine. What is run on it is in job.py.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.dashboard import Dashboard
from cluster.free_ports import free_ports
from cluster.processes import end_tree, signals_held, start_tree
from cluster.ray_cli import ClusterFailed, own_environment, ray_command, tail

START_TIMEOUT_S = 120.0
JOB_STOP_WAIT_S = 30
"""How long Ray lets a stopped job write its checkpoints before it kills it."""
OBJECT_STORE_BYTES = 200_000_000


class LocalHead:
    """A Ray head with token authentication that lives as long as its `with` block.

    `client_environment` holds the variables with which `ray.init()` and the `ray` command of any
    process on this machine reach it; `dashboard_url` is where jobs are submitted.
    """

    def __init__(self, *, num_cpus: int | None = None, num_gpus: int | None = None) -> None:
        """Begin with so many CPUs and GPUs, whatever the machine has; None: what it has."""
        self._resources = {"num-cpus": num_cpus, "num-gpus": num_gpus}
        self._process: subprocess.Popen[bytes] | None = None
        self.client_environment: dict[str, str] = {}
        self.dashboard_url = ""

    def __enter__(self) -> Self:
        # Not $TMPDIR: a socket's path must stay below 104 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="unshift-", dir="/tmp"))
        # Ray opens its own folder to everybody: its logs, and sockets that ask for no token.
        self._ray_folder = self._folder / "ray"
        try:
            self._process = self._start()
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        with signals_held():
            if self._process:
                end_tree(self._process)
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def dashboard(self) -> Dashboard:
        """Return where jobs are queued."""
        return Dashboard(self.dashboard_url, headers={"Authorization": f"Bearer {self._token}"})

    def request(self, path: str, *, method: str = "GET") -> dict[str, Any] | None:
        """Return the JSON with which the dashboard answers, None unless it is a success."""
        return self.dashboard.request(path, method=method)

    def log_of(self, job: str) -> Path:
        """Return the file into which Ray writes what a job prints."""
        return self._ray_folder / "session_latest" / "logs" / f"job-driver-{job}.log"

    def check_alive(self) -> None:
        """Raise ClusterFailed once `ray start` has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise self._failure(f"`ray start` ended with status {self._process.returncode}")

    def _start(self) -> subprocess.Popen[bytes]:
        gcs_port, dashboard_port, client_port, metrics_port = free_ports(4)
        self.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        self.client_environment = self._write_token()
        command = [
            *(ray_command(), "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--temp-dir={self._ray_folder}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
            *(f"--port={gcs_port}", f"--ray-client-server-port={client_port}"),
            # 0: any free one. Ray's own defaults are fixed and shared by all heads of a machine.
            *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"),
            # One node needs no autoscaler; a sweep reports what its workers have to say. 2 s less.
            *("--no-monitor", "--include-log-monitor=false"),
        ]
        given = {name: count for name, count in self._resources.items() if count is not None}
        command += [f"--{name}={count}" for name, count in given.items()]
        variables = _head_environment() | self.client_environment
        variables["DASHBOARD_METRIC_PORT"] = str(metrics_port)
        variables["TMPDIR"] = str(self._folder)  # where the dashboard leaves folders behind
        with (self._folder / "start.log").open("wb") as log:
            return start_tree(command, env=variables, cwd=self._folder, output=log)

    def _write_token(self) -> dict[str, str]:
        self._token = secrets.token_hex(32)
        path = self._folder / "token"
        path.touch(mode=0o600)
        path.write_text(self._token)
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}

    def _wait_until_ready(self) -> None:
        address = self._ray_folder / "ray_current_cluster"  # the last thing that `ray start` writes
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (address.exists() and self.request("/api/version")):
            self.check_alive()
            if time.monotonic() > deadline:
                raise self._failure(f"not ready after {START_TIMEOUT_S:.0f} s")
            time.sleep(0.1)
        self.client_environment["RAY_ADDRESS"] = address.read_text().strip()

    def _failure(self, reason: str) -> ClusterFailed:
        log = (self._folder / "start.log").read_text(errors="replace")
        return ClusterFailed(
            f"the local Ray head failed: {reason}; the end of its log:\n{tail(log)}"
        )


def _head_environment() -> dict[str, str]:
    variables = own_environment()
    # A job's `python` is the first on the PATH of the process that ran `ray start`.
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
    variables["RAY_JOB_STOP_WAIT_TIME_S"] = str(JOB_STOP_WAIT_S)
    return variables
