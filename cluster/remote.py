"""Jobs of a cluster that runs elsewhere: found, watched, asked to end in good order."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from cluster.dashboard import Dashboard
from cluster.job import ENDED, conclude, follow, queue
from cluster.job_log import JobOutput, StreamLog
from cluster.ray_cli import ClusterFailed
from cluster.small_job import collect

_OURS = re.compile(r".+-[0-9a-f]{8}")
_HELPER = ".stop."
"""Stands in the name of a small job of ours behind the name of the job that it asks."""
_SECONDS_BETWEEN_LOOKS = 0.5

# Run beside the driver: a signal to it alone. Ray's own stop signals its children too, and kills
# all of them after RAY_JOB_STOP_WAIT_TIME_S of the head: 3 s, unless the cluster says more.
_SIGNAL_DRIVER = """
import signal, sys
import psutil
pid, job = int(sys.argv[1]), sys.argv[2]
process = psutil.Process(pid)
if job not in process.environ().get("RAY_JOB_CONFIG_JSON_ENV_VAR", ""):
    sys.exit(f"process {pid} is not the driver of {job}")
process.send_signal(signal.SIGTERM)
"""


def find_job(dashboard: Dashboard, job: str | None) -> dict[str, Any]:
    """Return what Ray knows of a job; of none, the one of ours that runs or waits.

    Raises ClusterFailed where there is none, or several.
    """
    if job is not None:
        details: dict[str, Any] = dashboard.ask(f"/api/jobs/{job}")
        if not details["submission_id"]:
            raise ClusterFailed(f"JOB={job}; must be one that was submitted, not a driver's number")
        return details
    every = dashboard.ask("/api/jobs/")
    ours = [each for each in every if _OURS.fullmatch(each.get("submission_id") or "")]
    alive = [each for each in ours if each["status"] not in ENDED]
    if len(alive) == 1:
        return dict(alive[0])
    names = ", ".join(sorted(each["submission_id"] for each in alive or ours))
    state = "several run" if alive else "none runs"
    raise ClusterFailed(f"JOB must be given, since {state}: {names or 'there is none at all'}")


def watch(dashboard: Dashboard, job: str, *, write: Callable[[str], object]) -> int:
    """Pass on all that a job prints until it has ended, and return its exit status."""
    log = StreamLog(dashboard, job, JobOutput(job, write=write))
    return conclude(follow(dashboard, job, log), log.output)


def ask_to_stop(dashboard: Dashboard, details: dict[str, Any]) -> str:
    """Ask a job's driver to let its trials write checkpoints, and return how it was asked.

    A driver that was asked before is not asked again: its second signal ends it at once. Raises
    ClusterFailed where it cannot be reached.
    """
    job = details["submission_id"]
    driver = details.get("driver_info") or {}
    if not driver.get("pid"):
        stop_now(dashboard, job)  # no trial without a driver that has joined the cluster
        return "had not begun: it is taken back"
    if _was_asked(dashboard, job):
        return "was asked before"
    _signal_driver(dashboard, job, driver)
    return "is asked: trials write their checkpoints and end"


def stop_now(dashboard: Dashboard, job: str) -> None:
    """Stop a job by Ray's own means, which are not patient."""
    dashboard.ask(f"/api/jobs/{job}/stop", method="POST")


def wait_for_end(dashboard: Dashboard, job: str) -> dict[str, Any]:
    """Return what Ray knows of a job once it has ended."""
    while (details := dashboard.request(f"/api/jobs/{job}") or {}).get("status") not in ENDED:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return details


def _was_asked(dashboard: Dashboard, job: str) -> bool:
    helpers = [
        each
        for each in dashboard.ask("/api/jobs/")
        if (each.get("submission_id") or "").startswith(f"{job}{_HELPER}")
    ]
    return any(each["status"] != "FAILED" for each in helpers)


def _signal_driver(dashboard: Dashboard, job: str, driver: dict[str, Any]) -> None:
    helper = f"{job}{_HELPER}{uuid.uuid4().hex[:4]}"
    command = ["python", "-c", _SIGNAL_DRIVER, str(driver["pid"]), job]
    queue(dashboard, helper, command, host=driver["node_ip_address"])
    answer = collect(dashboard, helper)
    if answer.status != "SUCCEEDED":
        raise ClusterFailed(f"{job} cannot be asked to stop: {answer.last_line}")
