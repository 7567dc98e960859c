"""Writing to MLflow from the background: training and the driver never wait for it.

What is due is kept by trial and written in batches; what a store does not take is tried again.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from sweeps.engine.mlflow_runs import Dues, Journey, SweepRuns, TrackedSweep
from sweeps.engine.outcomes import TrialRecord
from trainer.journal import Row

logger = logging.getLogger(__name__)

_BETWEEN_WRITES_S = 0.5
_BETWEEN_LOOKS_S = 0.1
_LONGEST_PAUSE_S = 30.0


class Tracking:
    """The one writer. Its methods return at once; `close` waits until all is written."""

    def __init__(self, sweep: TrackedSweep, *, on_run: Callable[[str, str], None]) -> None:
        """Begin. `on_run(fingerprint, run id)` is called, on the writer's thread, for each run."""
        self._sweep = sweep
        self._on_run = on_run
        self._runs: SweepRuns | None = None
        self._due: dict[str, Dues] = {}
        self._in_hand: dict[str, Dues] = {}
        """What was due and is being written."""
        self._ranked: list[TrialRecord] = []
        self._deadline_s: float | None = None
        self._timeout_s = 0.0
        self._is_hurried: Callable[[], bool] = lambda: True
        self._is_finished = False
        self._has_warned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def start_trial(self, fingerprint: str, params: Mapping[str, object], config: str) -> None:
        """Open a trial's run, or the one it has already; `config` is its record as text."""
        self._add(fingerprint, Dues(params=params, config=config))

    def describe_trial(self, fingerprint: str, tags: Mapping[str, str]) -> None:
        """Add where a trial runs."""
        self._add(fingerprint, Dues(tags=dict(tags)))

    def add_row(self, fingerprint: str, row: Row) -> None:
        """Add a row of a trial's journal."""
        self._add(fingerprint, Dues(rows=[row]))

    def end_trial(self, record: TrialRecord, *, config: str, error_text: str = "") -> None:
        """Close a trial's run with its outcome, and its record as it is now."""
        self._add(record.fingerprint, Dues(ending=record, config=config, error_text=error_text))

    def write_whole(self, record: TrialRecord, *, read: Journey) -> None:
        """Write all of an ended trial, unless its run has the outcome already."""
        self._add(record.fingerprint, Dues(params=record.params, ending=record, read=read))

    def close(
        self,
        ranked: Iterable[TrialRecord],
        *,
        timeout_s: float = 20.0,
        is_hurried: Callable[[], bool] = lambda: True,
    ) -> int:
        """Write the ranks and end the sweep's run; return of how many trials something is missing.

        In a hurry it waits no longer than the timeout, within which a stopped job must end too;
        else as long as the store takes one write after the other, each within that time.
        """
        with self._changed:
            self._ranked = list(ranked)
            self._is_hurried = is_hurried
            self._timeout_s = timeout_s
            self._deadline_s = time.monotonic() + timeout_s
            self._changed.notify()
        while self._thread.is_alive() and not self._is_late():
            self._thread.join(_BETWEEN_LOOKS_S)
        with self._changed:
            return len(self._due | self._in_hand) or int(not self._is_finished)

    def _add(self, fingerprint: str, dues: Dues) -> None:
        with self._changed:
            if fingerprint in self._due:
                self._due[fingerprint].add(dues)
            else:
                self._due[fingerprint] = dues
            self._changed.notify()

    def _work(self) -> None:
        pause_s = _BETWEEN_WRITES_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._due) or self._is_closing())
                self._in_hand, self._due = self._due, {}
            failed = self._write(self._in_hand)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if failed else _BETWEEN_WRITES_S
            with self._changed:
                self._put_back(failed)
                if self._is_over():
                    break
                if self._is_closing():
                    self._changed.wait(_BETWEEN_WRITES_S)
                else:
                    self._changed.wait_for(self._is_closing, timeout=pause_s)
        if not self._due:
            self._is_finished = self._attempt(self._finish)

    def _write(self, taken: dict[str, Dues]) -> dict[str, Dues]:
        """Write what is due of each trial; return what was not taken."""
        failed = {}
        for fingerprint, dues in taken.items():
            write = functools.partial(SweepRuns.write, fingerprint=fingerprint, dues=dues)
            if self._is_late() or not self._attempt(write):
                failed[fingerprint] = dues
        return failed

    def _attempt(self, work: Callable[[SweepRuns], None]) -> bool:
        try:
            if self._runs is None:
                self._runs = SweepRuns(self._sweep, on_run=self._on_run)
            work(self._runs)
        except Exception as error:  # noqa: BLE001 - the writer must outlive every store's mood
            self._runs = None  # looked up anew: the server may have done what it did not answer
            if not self._has_warned:
                self._has_warned = True
                logger.warning("MLflow did not take a write, which is tried again: %s", error)
            return False
        self._note_taken()
        return True

    def _finish(self, runs: SweepRuns) -> None:
        runs.finish(self._ranked, on_rank=self._note_taken)

    def _note_taken(self) -> None:
        if self._is_closing() and not self._is_hurried():
            self._deadline_s = time.monotonic() + self._timeout_s

    def _put_back(self, failed: dict[str, Dues]) -> None:
        for fingerprint, dues in failed.items():
            if fingerprint in self._due:
                dues.add(self._due[fingerprint])
            self._due[fingerprint] = dues
        self._in_hand = {}

    def _is_closing(self) -> bool:
        return self._deadline_s is not None

    def _is_late(self) -> bool:
        return self._deadline_s is not None and time.monotonic() > self._deadline_s

    def _is_over(self) -> bool:
        return self._is_closing() and (not self._due or self._is_late())
