"""One local Ray head of our own, the jobs that it is given, and the end of exactly its processes.

Each head has its own ports, token and folder under /tmp, so that several live side by side.
Linux and macOS; what the user is told around it all is in `cluster/__main__.py`.
"""

import codecs
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster import environment
from cluster.commit import UNKNOWN, commit_of

INTERRUPTED = 130
"""The exit status of a job that a signal to the launcher ended."""
START_TIMEOUT_S = 120.0
JOB_STOP_WAIT_S = 30
"""How long Ray lets a stopped job write its checkpoints before it kills it."""
STOP_TIMEOUT_S = 40.0
END_GRACE_S = 1.0
"""How long the processes of an ended head have to take their semaphores out of /dev/shm."""
OBJECT_STORE_BYTES = 200_000_000

logger = logging.getLogger(__name__)


class ClusterFailed(RuntimeError):
    """Ray did not start, or did not take a job; the text is meant for the user."""


class LocalHead:
    """A Ray head with token authentication that lives as long as its `with` block.

    `client_environment` holds the variables with which `ray.init()` and the `ray` command of any
    process on this machine reach it; `dashboard_url` is where jobs are submitted.
    """

    def __init__(self, *, num_cpus: int | None = None) -> None:
        self._num_cpus = num_cpus
        self._process: subprocess.Popen[bytes] | None = None
        self.client_environment: dict[str, str] = {}
        self.dashboard_url = ""

    def __enter__(self) -> Self:
        # Not $TMPDIR: a socket's path must stay below 104 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="unshift-", dir="/tmp"))
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
        with _signals_held():
            if self._process:
                _end_tree(self._process)
            shutil.rmtree(self._folder, ignore_errors=True)

    def request(self, path: str, *, method: str = "GET") -> dict[str, Any] | None:
        """Return the JSON with which the dashboard answers, None unless it is a success."""
        request = urllib.request.Request(self.dashboard_url + path, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        # A proxy from the user's environment cannot reach this machine's loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return None

    def log_of(self, job: str) -> Path:
        """Return the file into which Ray writes what a job prints."""
        return self._folder / "session_latest" / "logs" / f"job-driver-{job}.log"

    def check_alive(self) -> None:
        """Raise ClusterFailed once `ray start` has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise self._failure(f"`ray start` ended with status {self._process.returncode}")

    def _start(self) -> subprocess.Popen[bytes]:
        gcs_port, dashboard_port, client_port, metrics_port = _free_ports(4)
        self.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        self.client_environment = self._write_token()
        command = [
            *(_ray(), "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--temp-dir={self._folder}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
            *(f"--port={gcs_port}", f"--ray-client-server-port={client_port}"),
            # 0: any free one. Ray's own defaults are fixed and shared by all heads of a machine.
            *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"),
            # One node needs no autoscaler; a sweep reports what its workers have to say. 2 s less.
            *("--no-monitor", "--include-log-monitor=false"),
        ]
        if self._num_cpus is not None:
            command.append(f"--num-cpus={self._num_cpus}")
        variables = _head_environment() | self.client_environment
        variables["DASHBOARD_METRIC_PORT"] = str(metrics_port)
        variables["TMPDIR"] = str(self._folder)  # where the dashboard leaves folders behind
        with (self._folder / "start.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _ROOT, *command],
                env=variables,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the launcher alone
            )

    def _write_token(self) -> dict[str, str]:
        self._token = secrets.token_hex(32)
        path = self._folder / "token"
        path.touch(mode=0o600)
        path.write_text(self._token)
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}

    def _wait_until_ready(self) -> None:
        address = self._folder / "ray_current_cluster"  # the last thing that `ray start` writes
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
            f"the local Ray head failed: {reason}; the end of its log:\n{_tail(log)}"
        )


def submit(
    head: LocalHead,
    script: str,
    arguments: Sequence[str] = (),
    *,
    working_dir: Path,
    write: Callable[[str], object],
) -> int:
    """Run `python script arguments…` as a job of head and return the script's exit status.

    `write` gets what the script prints, as it comes, and nothing of what Ray says around it. A
    KeyboardInterrupt stops the job, waits for its last words and returns INTERRUPTED; a second one
    is raised. ClusterFailed where Ray refuses the job.
    """
    job = f"{Path(script).stem}-{uuid.uuid4().hex[:8]}"
    output = _JobOutput(head.log_of(job), job=job, write=write)
    try:
        _hand_over(head, job, ["python", script, *arguments], working_dir=working_dir)
        ending = _follow(head, job, output)
    except KeyboardInterrupt:
        logger.warning("Stopping the job, in up to %d s (Ctrl-C: at once) ...", JOB_STOP_WAIT_S)
        # What `ray job stop` does, without the seconds that its imports take.
        if head.request(f"/api/jobs/{job}/stop", method="POST"):
            _follow(head, job, output, timeout_s=STOP_TIMEOUT_S)
        return INTERRUPTED
    status = _exit_status(ending)
    if status and not output.has_begun:
        output.say(f"{ending.get('message') or 'the job was stopped'}\n")
    return status


def _hand_over(head: LocalHead, job: str, entrypoint: list[str], *, working_dir: Path) -> None:
    command = [
        *(_ray(), "job", "submit", "--address", head.dashboard_url, "--submission-id", job),
        *("--working-dir", str(working_dir), "--runtime-env-json", _runtime_env(working_dir)),
        # Followed by us: `ray job submit` shows a line up to 3 s late, and ends 5 s after the job.
        *("--no-wait", "--", *entrypoint),
    ]
    client = subprocess.run(
        command,
        env=_job_client_environment(head),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )
    if client.returncode:
        raise ClusterFailed(f"Ray did not take the job; it said:\n{_tail(client.stdout)}")


def _follow(
    head: LocalHead, job: str, output: "_JobOutput", *, timeout_s: float = float("inf")
) -> dict[str, Any]:
    """Pass the job's output on until it has ended, and return Ray's last word on it."""
    deadline = time.monotonic() + timeout_s
    while True:
        details = head.request(f"/api/jobs/{job}") or {}
        for _ in range(5):
            output.pass_on()  # after the question: what an ended job wrote is complete
            if details.get("status") in ("SUCCEEDED", "FAILED", "STOPPED"):
                return details
            time.sleep(0.1)
        if time.monotonic() > deadline:
            return details
        head.check_alive()


def _exit_status(details: dict[str, Any]) -> int:
    if details["status"] == "SUCCEEDED":
        return 0
    code = int(details.get("driver_exit_code") or 1)
    return code if code > 0 else 128 - code  # ended by a signal, as a shell tells it


class _JobOutput:
    """What a job has printed, from Ray's log of it, which has a few lines of Ray's on top."""

    def __init__(self, path: Path, *, job: str, write: Callable[[str], object]) -> None:
        self._path = path
        self._write = write
        self._opening = f"Running entrypoint for job {job}: ".encode()
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._offset = 0
        self._is_open = False
        self.has_begun = False

    def pass_on(self) -> None:
        """Hand on what has been added to the log since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._offset)
            while not self._is_open and (line := log.readline()).endswith(b"\n"):
                self._is_open = line.startswith(self._opening)
                self._offset = log.tell()
            added = log.read() if self._is_open else b""
        self._offset += len(added)
        if added:
            self.has_begun = True
            self.say(self._decode(added))

    def say(self, text: str) -> None:
        """Write text; a closed terminal or pipe is no reason to lose a sweep."""
        with suppress(OSError):
            self._write(text)


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


def _end_tree(root: subprocess.Popen[bytes]) -> None:
    """End root and every process below it, or of its session, and nothing else."""
    if root.poll() is None:
        root.send_signal(signal.SIGSTOP)  # it would end with `ray start`, before the others
    _signal_members(root.pid, signal.SIGTERM)
    patience = time.monotonic() + END_GRACE_S
    while _members(root.pid) and time.monotonic() < patience:
        time.sleep(0.02)
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
def _signals_held() -> Iterator[None]:
    """Keep what would interrupt this thread waiting until the block has ended."""
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-20:])


def _ray() -> str:
    path = Path(sys.executable).with_name("ray")
    if not path.exists():
        raise ClusterFailed(f"no `ray` beside {sys.executable}: install unshift[sweep]")
    return str(path)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _own_environment() -> dict[str, str]:
    # Each of these would lead to another head; RAY_ADDRESS even beats `--address`.
    foreign = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS")
    own = {name: value for name, value in os.environ.items() if name not in foreign}
    return environment.QUIET | environment.TUNE | own


def _head_environment() -> dict[str, str]:
    variables = _own_environment()
    # A job's `python` is the first on the PATH of the process that ran `ray start`.
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
    variables["RAY_JOB_STOP_WAIT_TIME_S"] = str(JOB_STOP_WAIT_S)
    return variables


def _job_client_environment(head: LocalHead) -> dict[str, str]:
    variables = _own_environment() | head.client_environment
    del variables["RAY_ADDRESS"]
    variables["NO_PROXY"] = variables["no_proxy"] = "127.0.0.1"
    return variables


def _runtime_env(working_dir: Path) -> str:
    """Return Ray's runtime environment of a job as JSON: its commit, and where it may write."""
    variables = {"TMPDIR": tempfile.gettempdir()}  # the head's own goes away with it
    if (commit := commit_of(working_dir)) != UNKNOWN:
        variables["UNSHIFT_COMMIT"] = commit
    if home := os.environ.get("UNSHIFT_HOME"):
        # The job runs in a copy of the folder, where a relative path would be thrown away.
        is_url = "://" in home
        variables["UNSHIFT_HOME"] = home if is_url else str(Path(home).expanduser().absolute())
    return json.dumps({"env_vars": variables})
