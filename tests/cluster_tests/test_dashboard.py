"""The head's HTTP interface over a line that breaks and with a token that must not go astray."""

import http.server
import json
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.dashboard.consts import WAIT_AVAILABLE_AGENT_TIMEOUT

from cluster import job
from cluster.dashboard import Dashboard
from cluster.job import queue
from cluster.job_log import JobOutput, StreamLog
from cluster.ray_cli import ClusterFailed

LOG = b"ray says something\nRunning entrypoint for job j: python x.py\none\ntwo \xc3\xa9\nthree\n"


class Head(http.server.BaseHTTPRequestHandler):
    """A head whose streams of a log end early, every time at another byte."""

    cuts = [10, 70, 71, 30]
    """Within Ray's own lines, within a letter, after it, before what was sent already."""

    def do_GET(self) -> None:
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/api/version")  # type: ignore[attr-defined]
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path.startswith("/api/v0/logs/stream"):
            self.wfile.write(LOG[: self.cuts.pop(0)] if self.cuts else LOG[:-3])
        elif self.path.startswith("/api/v0/logs/file"):
            self.wfile.write(LOG)
        else:
            content = {"driver_node_id": "n", "status": "RUNNING", "seen": dict(self.headers)}
            self.wfile.write(json.dumps(content).encode())

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def head() -> Iterator[Dashboard]:
    """The client of such a head."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Head) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Dashboard(url, headers={"Authorization": "Bearer secret"})
        server.shutdown()


def test_a_log_over_broken_connections_has_each_letter_once(head: Dashboard) -> None:
    seen: list[str] = []
    output = JobOutput("j", write=seen.append)
    log = StreamLog(head, "j", output, seconds_between_tries=0.01)
    while "two é" not in "".join(seen):
        log.pass_on()
    log.finish()
    log.finish()
    assert "".join(seen) == "one\ntwo é\nthree\n"
    log._reader.join(10)
    assert not log._reader.is_alive()  # else it would ask on and on, whoever gets that port next


def test_the_token_goes_to_the_head_and_not_to_where_that_redirects(head: Dashboard) -> None:
    assert head.ask("/api/version")["seen"]["Authorization"] == "Bearer secret"
    with pytest.raises(ClusterFailed, match="answers with 302"):
        head.ask("/away")


def test_a_job_is_queued_with_more_patience_than_rays_own(
    head: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, open_it = [], head.open

    def note_and_open(path: str, *, timeout_s: float, **more: Any) -> HTTPResponse:
        given.append(timeout_s)
        return open_it(path, timeout_s=timeout_s, **more)

    monkeypatch.setattr(head, "open", note_and_open)
    queue(head, "j-01234567", ["python", "x.py"])
    assert given[0] > WAIT_AVAILABLE_AGENT_TIMEOUT + 60  # and the agent joins Ray meanwhile


def test_a_job_is_asked_to_stop_with_more_patience_than_a_busy_head_needs(
    head: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both would be killed before trials have written their checkpoints."""
    given, open_it = {}, head.open

    def note_and_open(path: str, *, timeout_s: float, **more: Any) -> HTTPResponse:
        given[path.rpartition("/")[2]] = timeout_s
        return open_it(path, timeout_s=timeout_s, **more)

    def interrupt(*_: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(head, "open", note_and_open)
    monkeypatch.setattr(job, "queue", interrupt)
    followed: list[float] = []
    monkeypatch.setattr(job, "follow", lambda *_, timeout_s, **more: followed.append(timeout_s))
    local = SimpleNamespace(dashboard=head, log_of=tmp_path.joinpath, check_alive=None)
    status = job.submit(local, "x.py", working_dir=tmp_path, write=str)
    assert (status, followed) == (job.INTERRUPTED, [job.STOP_TIMEOUT_S])
    assert given["stop"] == job.STOP_TIMEOUT_S > job.JOB_STOP_WAIT_S


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "auto", "ray://h:10001", "http://", "file:///x"])
def test_an_address_that_is_no_dashboards_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be a dashboard's, such as http://127.0.0.1:8265"):
        Dashboard.at(url)


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="address=REDACTED") as refused:
        Dashboard.at("http://somebody:hunter2@h:8265")
    assert "hunter2" not in str(refused.value)


def test_addresses_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert Dashboard.at(None).url == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1/")
    assert Dashboard.at(None).url == "http://a:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:1")
    assert Dashboard.at(None).url == "http://b:1"
    assert Dashboard.at("http://c:1").url == "http://c:1"
