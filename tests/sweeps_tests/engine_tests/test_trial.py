import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from sweeps.engine import trial as module
from sweeps.engine.root import Root, StoreAway
from sweeps.engine.signals import EndRequest
from sweeps.engine.trial import Sharing, free_memory, is_out_of_memory
from trainer.data import DataAway
from trainer.journal import FILE_NAME as JOURNAL

REPORT_S = 2.0
ALL = None


class Store:
    """A root in a store that takes its time, on a clock that only work moves."""

    def __init__(self, *, copy_s):
        self.now_s = 0.0
        self.copy_s = copy_s
        self.is_away = False
        self.shared = []

    def share(self, fingerprint, *, only=None, patience_s=0.0):
        self.now_s += self.copy_s if self.is_away or only is None else 0.0
        self.shared.append("away" if self.is_away else only)
        if self.is_away:
            raise StoreAway("nobody answers")


def train_with(store, *, reports, always_at=()):
    sharing = Sharing(store, "0" * 16, always_at=always_at, clock=lambda: store.now_s)
    for step in range(1, reports + 1):
        store.now_s += REPORT_S
        sharing.share(step=step)
        yield step


@pytest.mark.parametrize(("copy_s", "reports_between"), [(0.0, 1), (0.1, 1), (1.0, 5), (10.0, 45)])
def test_a_trial_waits_for_its_store_for_a_tenth_of_its_time_at_most(copy_s, reports_between):
    store = Store(copy_s=copy_s)
    list(train_with(store, reports=91))
    assert store.shared == [
        ALL if step % reports_between == 0 else JOURNAL for step in range(91)
    ], "the first, and then so many apart"


def test_all_that_a_stopped_trial_leaves_is_there_before_its_verdict():
    store = Store(copy_s=10.0)
    list(train_with(store, reports=6, always_at=[2, 4]))
    assert store.shared == [ALL, ALL, JOURNAL, ALL, JOURNAL, JOURNAL]


def test_a_store_that_is_away_is_left_alone_for_a_while(caplog):
    store = Store(copy_s=1.0)
    for step in train_with(store, reports=13):
        store.is_away = 1 <= step < 8
    assert store.shared == [ALL, "away", "away", ALL, JOURNAL]
    assert "trains on, and shares its files later: nobody answers" in caplog.text


class Folder:
    """Recordings on a network, which are there at the so-manieth look."""

    def __init__(self, *, there_at):
        self.there_at, self.looks = there_at, 0

    def train(self):
        self.looks += 1
        if self.looks < self.there_at:
            raise DataAway("data.path=/music; must be an existing folder")
        return "trained"


def test_recordings_that_are_away_for_a_moment_are_waited_for(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_TRIES", 0.01)
    folder = Folder(there_at=4)
    assert module._with_recordings(lambda: False)(folder.train) == "trained"
    assert folder.looks == 4


@pytest.mark.parametrize(("patience_s", "is_asked"), [(0.0, False), (60.0, True)])
def test_recordings_that_stay_away_or_a_stop_end_the_wait(monkeypatch, patience_s, is_asked):
    monkeypatch.setattr(module, "_DATA_PATIENCE_S", patience_s)
    folder = Folder(there_at=4)
    with pytest.raises(DataAway, match="must be an existing folder"):
        module._with_recordings(lambda: is_asked)(folder.train)
    assert folder.looks == 1


class Exited(Exception):
    """Of a process that would be gone."""


@pytest.fixture
def asked(monkeypatch):
    """A worker that was asked to end, below a process of Ray's that the test ends."""
    parents = SimpleNamespace(found=[])

    def leave(status):
        raise Exited(status)

    monkeypatch.setattr(module, "_MACHINE_ENDS_WITHIN_S", 0.3)
    monkeypatch.setattr(os, "getppid", lambda: parents.found.pop(0) if parents.found else 7)
    monkeypatch.setattr(os, "_exit", leave)
    return parents


def test_a_worker_asked_to_end_ends_with_its_machine_without_a_word(asked):
    asked.found += [7, 7, 1]  # Ray's process is gone at the second look
    with pytest.raises(Exited):
        module._end_with_the_machine()


def test_a_worker_asked_to_end_on_a_machine_that_stays_says_so(asked):
    began_s = time.monotonic()
    module._end_with_the_machine()
    assert time.monotonic() - began_s >= 0.3


@pytest.mark.parametrize("is_sweep_asked", [False, True])
def test_whether_a_worker_alone_was_asked(tmp_path, monkeypatch, is_sweep_asked):
    monkeypatch.setattr(signal, "getsignal", lambda number: EndRequest())
    root = Root.open("root", relative_to=tmp_path, create=True)
    should_stop = module._StopAsked(root, "sweep")
    assert not should_stop.is_of_this_process
    should_stop._request(signal.SIGTERM, None)
    if is_sweep_asked:
        root.ask_to_stop("sweep")
    assert should_stop()
    assert should_stop.is_of_this_process == (not is_sweep_asked)


def allocate_too_much():
    torch.empty(10**15)


def test_a_cpu_without_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        allocate_too_much()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc's malloc")
@pytest.mark.usefixtures("no_garbage")  # malloc could take what earlier tests freed
def test_what_a_trial_freed_on_its_thread_is_given_back():
    kept = []

    def train():
        tensors = [torch.ones(25_000) for _ in range(3_000)]  # of 100 kB, from the thread's arena
        # On top of them, so that malloc cannot let go by itself: a smaller one may find room below,
        # between what threads before left in the arena that this one takes over.
        kept.append(torch.ones(25_000))
        assert len(tensors) == 3_000

    before = psutil.Process().memory_info().rss
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    held = psutil.Process().memory_info().rss - before
    free_memory()
    after = psutil.Process().memory_info().rss - before
    assert held > 200e6, "else this would show nothing"
    assert after < 50e6
