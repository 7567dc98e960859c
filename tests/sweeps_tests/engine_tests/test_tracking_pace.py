"""An MLflow that is slow, or refuses: what is kept for it, and what is missing at the end."""

import threading
import time

import pytest

from sweeps.engine import tracking
from sweeps.engine.tracking import Tracking

A, B, C = "a" * 16, "b" * 16, "c" * 16


class Store:
    """Takes writes one after the other, each when it is let through, or refuses."""

    def __init__(self):
        self.asked, self.taken = [], []
        self.answers = threading.Semaphore(0)
        self.refusals = 0

    def write(self, *, fingerprint, dues):
        self.asked.append(fingerprint)
        self.answers.acquire(timeout=60)
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("not now")
        self.taken += [(fingerprint, row["step"]) for row in dues.rows]

    def finish(self, ranked, *, on_rank):
        """Take the ranks."""

    def wait_until_asked(self, times):
        deadline = time.monotonic() + 60
        while len(self.asked) < times:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def store(monkeypatch):
    store = Store()
    runs = type("SweepRuns", (Store,), {"__new__": lambda cls, *_, **__: store})
    monkeypatch.setattr(tracking, "SweepRuns", runs)
    yield store
    store.answers.release(100)


@pytest.fixture
def writer(store):
    return Tracking(None, on_run=None)


def test_what_came_while_a_write_was_refused_is_written_with_it_in_order(store, writer):
    store.refusals = 1
    writer.add_row(A, {"step": 10})
    store.wait_until_asked(1)
    writer.add_row(A, {"step": 20})
    store.answers.release(2)
    assert writer.close([]) == 0
    assert store.taken == [(A, 10), (A, 20)]


def test_what_is_being_written_at_the_end_is_missing_too(store, writer):
    writer.add_row(A, {"step": 10})
    store.wait_until_asked(1)
    writer.add_row(B, {"step": 10})
    assert writer.close([], timeout_s=0.2) == 2


def test_nothing_more_is_asked_of_a_store_once_the_time_is_over(store, writer):
    writer.add_row(C, {"step": 10})
    store.wait_until_asked(1)
    for name in (A, B):  # which are written in one go then
        writer.add_row(name, {"step": 10})
    store.answers.release()
    store.wait_until_asked(2)
    assert writer.close([], timeout_s=0.2) == 2
    store.answers.release(100)
    writer._thread.join(60)
    assert not writer._thread.is_alive()
    assert store.asked == [C, A]
