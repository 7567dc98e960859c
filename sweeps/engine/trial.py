"""One trial on a worker: an assignment from the driver, `train`, and its outcome as a report.

The only place where any exception is caught: a failing trial never ends a sweep.
"""

import contextlib
import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity
import torch
from filelock import Timeout
from ray import tune
from ray.exceptions import RayError
from ray.tune.trainable.function_trainable import FunctionTrainable, wrap_function

from sweeps.engine.gpu_memory import GpuMemory
from sweeps.engine.outcomes import OUTGROWN
from sweeps.engine.root import STORE_PATIENCE_S, Root, StoreAway, TakenOver, open_patiently
from sweeps.engine.share import Share
from sweeps.engine.signals import EndRequest
from trainer.checkpoint import find_usable
from trainer.config import METRIC, TrainConfig
from trainer.data import DataAway
from trainer.device import describe_environment, resolve_device
from trainer.journal import FILE_NAME as JOURNAL
from trainer.journal import Row
from trainer.train import StopTraining, train

_SECONDS_BETWEEN_TRIES = 0.5
_PATIENCE_S = 5.0
"""The workers of a driver that was killed end sooner."""

_MACHINE_ENDS_WITHIN_S = 10.0
"""Ray's own process ends a second or two after it was asked to."""

_DATA_PATIENCE_S = 30.0
"""A network's folder may be away for a moment."""

_PAUSE_FACTOR = 9.0
"""A trial trains for so many times as long as copying its files has taken."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a sweep have in common on their workers."""

    storage: str
    """The root, as this host opens it too."""
    sweep: str
    """While it is asked to stop, trials checkpoint and end as interrupted."""
    commit: str
    rungs: Collection[int] = ()
    """Steps at which ASHA may stop a trial."""
    gpu_memory: GpuMemory = GpuMemory()


def build_trainable(context: TrialContext) -> type[FunctionTrainable]:
    """Return `run_trial` as what Tune makes actors of, on which SIGTERM ends a trial in good order.

    Trials run off the main thread, where no signal can be caught; an actor is set up on it.
    """

    class TrialWorker(wrap_function(tune.with_parameters(run_trial, context=context))):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            signal.signal(signal.SIGTERM, EndRequest())
            super().setup(config)

    return TrialWorker


def run_trial(assignment: dict[str, Any], context: TrialContext) -> None:
    """Train one trial; the last report says how it ended. Resumes where a checkpoint is."""
    torch.set_num_threads(int(assignment["resources"]["CPU"]))
    share = Share(assignment["share_bytes"], context.gpu_memory)
    try:
        share.fence()
        ending = _run_alone(assignment, context, share)
    except RayError:
        raise
    except (StoreAway, TakenOver) as error:
        ending = {"outcome": "interrupted", "error": str(error)}
    except DataAway as error:  # as all other trials would find
        reason = f"{error}; on {platform.node()}"
        ending = {"outcome": "interrupted", "error": reason, "stops_sweep": True}
    except Exception as error:  # noqa: BLE001 - the trial boundary: recorded, not swallowed
        reason = f"{type(error).__name__}: {_first_line(error)}"
        outcome = "out_of_memory" if is_out_of_memory(error) else "failed"
        if outcome == "out_of_memory":
            share.note_out_of_memory()
        ending = {"outcome": outcome, "error": reason, "traceback": traceback.format_exc()}
    if share.outgrown_bytes:
        ending = {"outcome": OUTGROWN, "needed_bytes": share.outgrown_bytes}
    free_memory()
    if ending["outcome"] == "stopped":
        sys.exit(0)  # Tune's own way out of a function that it has ended: it takes no more reports
    tune.report({"ending": ending})


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: on a CPU, torch says so only in its message."""
    said = "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or said


def _run_alone(assignment: dict[str, Any], context: TrialContext, share: Share) -> dict[str, Any]:
    root = open_patiently(context.storage)
    should_stop = _StopAsked(root, context.sweep)
    name = assignment["fingerprint"]
    with _alone(root, name, should_stop) as is_alone:
        if is_alone:
            config = TrainConfig.from_fields(assignment["fields"] | {"data.cache": str(root.cache)})
            sharing = Sharing(root, name, always_at=context.rungs)
            ending = _train(
                config, sharing, share=share, commit=context.commit, should_stop=should_stop
            )
        else:
            ending = {"outcome": "interrupted", "error": "asked to stop"}
    if ending["outcome"] == "interrupted" and should_stop.is_of_this_process:
        _end_with_the_machine()
    return ending


def _end_with_the_machine() -> None:
    """Wait a moment before it is told that this worker was asked to end: a machine that is taken
    back asks all of its processes. With Ray's gone, the trial goes on elsewhere in this sweep."""
    raylet = os.getppid()
    deadline_s = time.monotonic() + _MACHINE_ENDS_WITHIN_S
    while time.monotonic() < deadline_s:
        if os.getppid() != raylet:
            os._exit(1)
        time.sleep(0.1)


@contextlib.contextmanager
def _alone(root: Root, name: str, should_stop: Callable[[], bool]) -> Iterator[bool]:
    """Keep all others of this host from writing to a trial's folder, waiting until they have left
    it: another sweep's worker, or one whose driver was killed a moment ago. False when asked to
    stop."""
    waited_s = 0.0
    with contextlib.ExitStack() as held:
        while not should_stop():
            try:
                held.enter_context(root.hold(name, timeout_s=_SECONDS_BETWEEN_TRIES))
                break
            except Timeout:
                waited_s += _SECONDS_BETWEEN_TRIES
                if waited_s == _PATIENCE_S:
                    tune.report({"waits_for": name})
        else:
            yield False
            return
        yield True


def _train(
    config: TrainConfig,
    sharing: "Sharing",
    *,
    share: Share,
    commit: str,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    here = describe_environment(resolve_device(config.device))
    tune.report({"started": here})
    folder = sharing.fetch()
    checkpoint, rows = find_usable(folder, fingerprint=folder.name) or (None, [])

    def report(row: Row) -> None:
        sharing.share(step=row["step"])
        peak_bytes = share.read(row)
        _report(row, peak_bytes=peak_bytes)
        if row["step"] < config.steps:
            share.check(peak_bytes)

    try:
        for row in rows:  # a driver that died may have missed some; who has them takes them once
            _report(row)
    except StopTraining as stop:  # by a verdict that the driver did not come to carry out
        return {"outcome": "stopped", "error": str(stop)}
    result = _with_recordings(should_stop)(
        train,
        config,
        report=report,
        should_stop=should_stop,
        resume_from=checkpoint,
        folder=folder,
        commit=commit,
    )
    sharing.share_all()
    return {"outcome": result.outcome, "step": result.step, "error": result.reason}


def _with_recordings(should_stop: Callable[[], bool]) -> tenacity.Retrying:
    """Return what calls a function again while a folder of recordings is away, for a while."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, DataAway) and not should_stop()),
        wait=tenacity.wait_fixed(_SECONDS_BETWEEN_TRIES),
        stop=tenacity.stop_after_delay(_DATA_PATIENCE_S),
        reraise=True,
    )


class Sharing:
    """Copies what a trial writes to the root: its journal at each report, the rest now and then.

    How long the rest takes is up to the store, and to how many trials send to it. A trial then
    trains for nine times as long before the next time, so that a store that is slow gets less, and
    no trial waits for more than a tenth of its time.
    """

    def __init__(
        self,
        root: Root,
        name: str,
        *,
        always_at: Collection[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Share a trial's files; all of them at some steps, after which others may use them."""
        self._root = root
        self._name = name
        self._always_at = always_at
        self._clock = clock
        self._due_s = float("-inf")
        self._is_away = False

    def fetch(self) -> Path:
        """Return the trial's folder with what the root has of it."""
        return self._root.fetch_to_train(self._name)

    def share(self, *, step: int) -> None:
        """Share after a report. A store that is away gets it later."""
        begun_s = self._clock()
        is_due = begun_s >= self._due_s or step in self._always_at
        if self._is_away and not is_due:
            return
        try:
            self._root.share(self._name, only=None if is_due else JOURNAL)
            self._is_away = False
        except StoreAway as error:
            self._is_away = True
            logger.warning("trial %s trains on, and shares its files later: %s", self._name, error)
        if is_due or self._is_away:
            ended_s = self._clock()
            self._due_s = ended_s + _PAUSE_FACTOR * (ended_s - begun_s)

    def share_all(self) -> None:
        """Share as the trial ends, waiting long for a store that is away, else raise StoreAway."""
        self._root.share(self._name, patience_s=STORE_PATIENCE_S)


def _report(row: Row, **measured: int) -> None:
    try:
        tune.report({"step": row["step"], METRIC: row[METRIC], "row": row, **measured})
    except SystemExit as ended:  # how Tune tells a trial that the scheduler has stopped it
        raise StopTraining("stopped by the scheduler") from ended


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def free_memory() -> None:
    """Give back to the system what a trial has freed: its worker goes on with another one.

    Each trial runs on a thread of its own, and glibc keeps for a thread what was freed on it: some
    3 GB after a demo trial with all terms of the loss.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):  # musl has it not
        ctypes.CDLL(None).malloc_trim(0)


class _StopAsked:
    """Whether this worker got a SIGTERM during this trial, or the sweep's trials are asked to end,
    which is looked up now and then: storage may be a network away."""

    def __init__(self, root: Root, sweep: str) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        self._request = handler if isinstance(handler, EndRequest) else EndRequest()
        self._request.is_made = False
        self._root = root
        self._sweep = sweep
        self._looked_at_s = float("-inf")

    @property
    def is_of_this_process(self) -> bool:
        """Whether nobody asked the sweep's other trials."""
        return self._request.is_made and not self._is_asked()

    def __call__(self) -> bool:
        if self._request.is_made:
            return True
        now_s = time.monotonic()
        if now_s - self._looked_at_s < self._root.seconds_between_looks:
            return False
        self._looked_at_s = now_s
        return self._is_asked()

    def _is_asked(self) -> bool:
        try:
            return self._root.is_asked_to_stop(self._sweep)
        except StoreAway:
            return False  # nobody can ask there now
