"""A sweep script as a job of a local head: handed over, followed, stopped in good order."""

import codecs
import json
import logging
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.commit import UNKNOWN, commit_of
from cluster.local import JOB_STOP_WAIT_S, LocalHead
from cluster.ray_cli import ClusterFailed, own_environment, ray_command, tail

INTERRUPTED = 130
"""The exit status of a job that a signal to the launcher ended."""
STOP_TIMEOUT_S = 40.0

logger = logging.getLogger(__name__)


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
        *(ray_command(), "job", "submit", "--address", head.dashboard_url, "--submission-id", job),
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
        raise ClusterFailed(f"Ray did not take the job; it said:\n{tail(client.stdout)}")


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


def _job_client_environment(head: LocalHead) -> dict[str, str]:
    variables = own_environment() | head.client_environment
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
