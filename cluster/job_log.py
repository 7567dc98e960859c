"""What a job has printed, from Ray's log of it: a file here, or a stream from a cluster."""

import codecs
import threading
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from cluster.dashboard import Dashboard

SECONDS_BETWEEN_LINES = 0.5
_SILENCE_S = 60.0
"""A stream that says nothing for so long is opened anew: a tunnel may be gone unnoticed."""
_PIECE_BYTES = 65536


class JobOutput:
    """A job's output without the lines that Ray puts on top of its log."""

    def __init__(self, job: str, *, write: Callable[[str], object]) -> None:
        self._write = write
        self._opening = f"Running entrypoint for job {job}: ".encode()
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._head = b""
        self._is_open = False
        self.has_begun = False

    def take(self, added: bytes) -> None:
        """Hand on what has been added to the log."""
        if not self._is_open:
            added = self._open(added)
        if added:
            self.has_begun = True
            self.say(self._decode(added))

    def say(self, text: str) -> None:
        """Write text; a closed terminal or pipe is no reason to lose a sweep."""
        with suppress(OSError):
            self._write(text)

    def _open(self, added: bytes) -> bytes:
        """Return what comes after Ray's own lines, of which the last tells the entrypoint."""
        *lines, self._head = (self._head + added).split(b"\n")
        for number, line in enumerate(lines):
            if line.startswith(self._opening):
                self._is_open = True
                return b"\n".join([*lines[number + 1 :], self._head])
        return b""


class JobLog(Protocol):
    """Where a job's output is read."""

    output: JobOutput

    def pass_on(self) -> None:
        """Hand on what is new."""

    def finish(self) -> None:
        """Hand on the rest of a job that has ended."""


class FileLog:
    """A log on this machine."""

    def __init__(self, path: Path, output: JobOutput) -> None:
        self.output = output
        self._path = path
        self._offset = 0

    def pass_on(self) -> None:
        """Hand on what has been added to the file."""
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._offset)
            added = log.read()
        self._offset += len(added)
        self.output.take(added)

    def finish(self) -> None:
        """Hand on the rest."""
        self.pass_on()


class StreamLog:
    """A log on a node of a cluster, read by a thread, on and on over broken connections."""

    def __init__(
        self,
        dashboard: Dashboard,
        job: str,
        output: JobOutput,
        *,
        seconds_between_tries: float = 1.0,
    ) -> None:
        self.output = output
        self._seconds_between_tries = seconds_between_tries
        self._dashboard = dashboard
        self._job = job
        self._node = ""
        self._taken = 0
        self._arrived = bytearray()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read_on, daemon=True)

    def pass_on(self) -> None:
        """Hand on what has arrived."""
        if self._reader.ident is None:
            self._reader.start()
        with self._lock:
            added, self._arrived = bytes(self._arrived), bytearray()
        self.output.take(added)

    def finish(self) -> None:
        """Hand on the rest, from the whole log: a stream does not say where it ends.

        The thread opens no other one.
        """
        self._is_over.set()
        if not self._find_node():
            return
        with suppress(OSError, HTTPException), self._open("file") as log:
            whole = log.read()
            with self._lock:
                self._arrived += whole[self._taken :]
                self._taken = max(self._taken, len(whole))
        self.pass_on()

    def _read_on(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError, HTTPException):
                if self._find_node():
                    self._read_stream()
            self._is_over.wait(self._seconds_between_tries)

    def _read_stream(self) -> None:
        """Read until the connection ends, leaving out what was read over an earlier one."""
        position = 0
        with self._open("stream") as stream:
            while piece := stream.read1(_PIECE_BYTES):
                with self._lock:
                    position += len(piece)
                    new = max(0, position - self._taken)
                    self._arrived += piece[len(piece) - min(new, len(piece)) :]
                    self._taken = max(self._taken, position)

    def _find_node(self) -> str:
        """Return the node on which the job runs, empty while it has none."""
        if not self._node:
            details = self._dashboard.request(f"/api/jobs/{self._job}") or {}
            self._node = details.get("driver_node_id") or ""
        return self._node

    def _open(self, media: str) -> HTTPResponse:
        query = {"node_id": self._node, "submission_id": self._job, "lines": -1}
        if media == "stream":
            query["interval"] = SECONDS_BETWEEN_LINES
        return self._dashboard.open(
            f"/api/v0/logs/{media}?{urlencode(query)}", timeout_s=_SILENCE_S
        )
