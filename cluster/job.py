"""A sweep script as a job of a Ray cluster: handed over, followed, on a local head stopped too."""

import logging
import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.commit import UNKNOWN, commit_of
from cluster.dashboard import Dashboard
from cluster.job_log import FileLog, JobLog, JobOutput
from cluster.local import JOB_STOP_WAIT_S, LocalHead
from cluster.package import Package, pack, upload_name
from cluster.ray_cli import ClusterFailed

INTERRUPTED = 130
"""The exit status of a job that a signal to the launcher ended."""
STOP_TIMEOUT_S = 40.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_QUEUE_TIMEOUT_S = 90.0
"""A head's first job waits for the agent of its node, for up to 10 s, and that one joins Ray."""
_UPLOAD_TIMEOUT_S = 600.0
"""For a package of our limit over a slow line."""

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
    job = name_job(script)
    log = FileLog(head.log_of(job), JobOutput(job, write=write))
    try:
        queue(
            head.dashboard,
            job,
            ["python", script, *arguments],
            package=pack(working_dir),
            variables=_local_variables() | commit_variable(working_dir),
        )
        ending = follow(head.dashboard, job, log, check=head.check_alive)
    except KeyboardInterrupt:
        logger.warning("Stopping the job, in up to %d s (Ctrl-C: at once) ...", JOB_STOP_WAIT_S)
        if _ask_to_stop(head.dashboard, job):
            follow(head.dashboard, job, log, check=head.check_alive, timeout_s=STOP_TIMEOUT_S)
        return INTERRUPTED
    return conclude(ending, log.output)


def name_job(script: str) -> str:
    """Return a new name for a job of a script."""
    return f"{Path(script).stem}-{uuid.uuid4().hex[:8]}"


def queue(
    dashboard: Dashboard,
    job: str,
    entrypoint: Sequence[str],
    *,
    package: Package | None = None,
    variables: Mapping[str, str] | None = None,
    host: str | None = None,
) -> None:
    """Upload a package and queue a job that runs an entrypoint in a copy of it, on a host or
    the head.

    The variables are shown by the dashboard: no secret goes through them. Raises ClusterFailed
    where Ray refuses.
    """
    environment: dict[str, Any] = {"env_vars": dict(variables or {})}
    if package is not None:
        environment["working_dir"] = _upload(dashboard, package)
    request: dict[str, Any] = {
        "submission_id": job,
        "entrypoint": shlex.join(entrypoint),
        "runtime_env": environment,
    }
    if host is not None:
        request["entrypoint_resources"] = {f"node:{host}": 0.001}
    dashboard.ask("/api/jobs/", method="POST", content=request, timeout_s=_QUEUE_TIMEOUT_S)


def follow(
    dashboard: Dashboard,
    job: str,
    log: JobLog,
    *,
    check: Callable[[], object] = lambda: None,
    timeout_s: float = float("inf"),
) -> dict[str, Any]:
    """Pass the job's output on until it has ended, and return Ray's last word on it.

    A dashboard that does not answer is asked again; `check` may raise.
    """
    deadline = time.monotonic() + timeout_s
    is_away = False
    while True:
        details = dashboard.request(f"/api/jobs/{job}") or {}
        if not details and not is_away:
            logger.warning("%s does not answer; the job may go on: asking again", dashboard.url)
        is_away = not details
        if details.get("status") in ENDED:
            log.finish()  # after the question: what an ended job wrote is complete
            return details
        for _ in range(5):
            log.pass_on()
            time.sleep(0.1)
        if time.monotonic() > deadline:
            return details
        check()


def conclude(ending: Mapping[str, Any], output: JobOutput) -> int:
    """Return a job's exit status; of one that died in silence, tell what Ray says."""
    status = _exit_status(ending)
    if status and not output.has_begun:
        output.say(f"{ending.get('message') or 'the job was stopped'}\n")
    return status


def commit_variable(working_dir: Path) -> dict[str, str]:
    """Return the variable by which a job knows its commit."""
    commit = commit_of(working_dir)
    return {} if commit == UNKNOWN else {"UNSHIFT_COMMIT": commit}


def _ask_to_stop(dashboard: Dashboard, job: str) -> bool:
    """Do what `ray job stop` does, without the seconds that its imports take; return whether Ray
    has heard. Else the head ends, and the job with it, before it has written its checkpoints: a
    head that is busy has time to answer.
    """
    try:
        dashboard.ask(f"/api/jobs/{job}/stop", method="POST", timeout_s=STOP_TIMEOUT_S)
    except ClusterFailed:
        return False
    return True


def _upload(dashboard: Dashboard, package: Package) -> str:
    name = upload_name()
    with tempfile.TemporaryFile() as file:
        package.write_to(file)
        file.seek(0)
        path, content = f"/api/packages/gcs/{name}", file.read()
        dashboard.ask(path, method="PUT", content=content, timeout_s=_UPLOAD_TIMEOUT_S)
    return f"gcs://{name}"


def _exit_status(details: Mapping[str, Any]) -> int:
    if details["status"] == "SUCCEEDED":
        return 0
    code = int(details.get("driver_exit_code") or 1)
    return code if code > 0 else 128 - code  # ended by a signal, as a shell tells it


def _local_variables() -> dict[str, str]:
    """Return where a job on this machine may write."""
    variables = {"TMPDIR": tempfile.gettempdir()}  # the head's own goes away with it
    if home := os.environ.get("UNSHIFT_HOME"):
        # The job runs in a copy of the folder, where a relative path would be thrown away.
        is_url = "://" in home
        variables["UNSHIFT_HOME"] = home if is_url else str(Path(home).expanduser().absolute())
    return variables
