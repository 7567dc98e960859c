"""Jobs that answer within seconds: a question to one node."""

import time
from dataclasses import dataclass

from cluster.dashboard import Dashboard
from cluster.job import ENDED
from cluster.ray_cli import ClusterFailed

_SECONDS_BETWEEN_LOOKS = 0.05
PATIENCE_S = 60.0
"""A node that is busy, or far from the head, may need a while to start a process."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a small job ended, and what it printed."""

    status: str
    text: str

    @property
    def last_line(self) -> str:
        """Return what it said last."""
        return (self.text.strip().splitlines() or ["nothing was printed"])[-1]


def collect(dashboard: Dashboard, job: str) -> Answer:
    """Wait for a small job and return its answer. Raises ClusterFailed having waited for long."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        details = dashboard.ask(f"/api/jobs/{job}")
        if details["status"] in ENDED:
            break
        if time.monotonic() > deadline:
            dashboard.request(f"/api/jobs/{job}/stop", method="POST")
            raise ClusterFailed(
                f"{job} has not run within {PATIENCE_S:.0f} s: {details.get('message')}"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    logs = dashboard.ask(f"/api/jobs/{job}/logs")["logs"]
    return Answer(status=details["status"], text=logs or details.get("message") or "")
