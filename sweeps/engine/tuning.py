"""Ray Tune at work: the trials of one sweep, signals, and what they are told to."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from ray import tune
from ray.tune import Trainable
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial

from sweeps.engine.demand import Demand
from sweeps.engine.disk import Disk
from sweeps.engine.machines import MachineView
from sweeps.engine.outcomes import TrialRecord, rank
from sweeps.engine.placement import Machines, Request
from sweeps.engine.placer import Placer
from sweeps.engine.progress import ProgressTable
from sweeps.engine.recorder import Recorder
from sweeps.engine.search import Stop, StudySearcher
from sweeps.engine.setting import Setting
from sweeps.engine.signals import stop_on_signal
from sweeps.engine.stopping import SweepStopper, build_stopper
from sweeps.engine.store import keep_run_id, read_facts
from sweeps.engine.study import SweepStudy
from sweeps.engine.study_records import read_records, read_standings
from sweeps.engine.sync import track
from sweeps.engine.tracking import Tracking
from sweeps.engine.trial import TrialContext, build_trainable
from trainer.config import METRIC
from trainer.cost import checkpoint_bytes

_NO_LIMIT = 100_000
"""Of trials at once: the placer holds back what has no room. Without a number Tune would start one
actor at a time."""

_SHOWN_BY_TUNE = {n for n in class_cache.ENV_VARS_TO_PROPAGATE if n.startswith("AWS_")}
"""Variables that Tune would write into its actors' runtime environment, which Ray logs and its
dashboard shows. A worker that writes to an object store has keys of its own machine."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The parts of a sweep's driver, put together."""

    study: SweepStudy
    stopper: SweepStopper
    tracking: Tracking
    recorder: Recorder
    searcher: StudySearcher


class Forgetful(tune.Callback):
    """Lets go of what Tune keeps of an ended trial: its last row, and averages of every number in
    its reports and in its configuration."""

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Let go. The recorder has heard of it."""
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()
        kept = {name: value for name, value in trial.last_result.items() if name != "row"}
        trial.run_metadata.last_result = kept

    on_trial_error = on_trial_complete


def run_trials(
    setting: Setting,
    study: Study,
    view: MachineView,
    *,
    show: Callable[[str], None],
    build: Callable[[TrialContext], type[Trainable]] = build_trainable,
) -> bool:
    """Train until the study has the trials asked for, or a signal asks to stop.

    `build` makes what Tune runs a trial by. Return whether it came to the end and MLflow has all of
    it: after a signal, time is short. Raises ValueError where no trial can go on, with the reason.
    """
    with _stop_on_signal(setting, show=show) as stop:
        driver = build_driver(
            setting, study, look=view.look, show=show, stop=stop, want=Demand().want
        )
        try:
            _tune(setting, driver, build(_context(setting, driver)))
            driver.recorder.leave_open()
        finally:
            ranked = rank(read_records(study))
            undelivered = driver.tracking.close(ranked, is_hurried=stop.is_set)
    if undelivered:
        show(
            f"MLflow lacks something of {undelivered} trials: the same command writes it, "
            f"or {setting.options.unshift_command} sync"
        )
    if stop.problem:
        raise ValueError(f"{stop.problem}; the same command goes on once it is put right")
    if stop.is_set():
        show("stopped: trials that had not finished go on with the same command")
    return not stop.is_set() and not undelivered


def build_driver(
    setting: Setting,
    study: Study,
    *,
    look: Callable[[], Machines],
    show: Callable[[str], None],
    stop: Stop,
    want: Callable[[Request, int], None] = lambda request, count: None,
) -> Driver:
    """Put the parts of a driver together, knowing what earlier drivers of this study left."""
    watcher = ProgressTable(read_facts(study)["do_nothing"][METRIC], show=show)
    sweep_study = SweepStudy(study, setting.plan, find_finished=_finder(setting, study))
    stopper = build_stopper(setting.base, stops_early=setting.sweep.stops_early)
    stopper.remember(sweep_study.curves(), stops=sweep_study.stops())
    tracking = _open_tracking(setting, study)
    placer = Placer(setting.capacity, _open_disk(setting), look=look, want=want)
    recorder = Recorder(
        sweep_study,
        stopper,
        tracking,
        watcher,
        root=setting.root,
        placer=placer,
    )
    recorder.catch_up(sweep_study.settled())
    searcher = StudySearcher(sweep_study, recorder, placer, stop)
    return Driver(
        study=sweep_study,
        stopper=stopper,
        tracking=tracking,
        recorder=recorder,
        searcher=searcher,
    )


def _context(setting: Setting, driver: Driver) -> TrialContext:
    return TrialContext(
        storage=setting.root.place,
        sweep=setting.lock_name,
        commit=setting.options.commit,
        rungs=driver.stopper.rungs(),
        gpu_memory=setting.sweep.gpu_memory,
    )


def _tune(setting: Setting, driver: Driver, trainable: type[Trainable]) -> None:
    placed = tune.with_resources(
        trainable,
        # Tune gives a worker to another trial only where both ask for the same.
        lambda assignment: tune.PlacementGroupFactory([assignment["resources"]]),
    )
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_SHOWN_BY_TUNE)
    logging.getLogger("ray.tune.tune").addFilter(_is_news)
    # Tune's own state is of no use: the study is what a sweep goes on from.
    with setting.root.lend_scratch() as scratch:
        tune.Tuner(
            placed,
            tune_config=tune.TuneConfig(
                search_alg=driver.searcher,
                scheduler=driver.stopper,
                num_samples=-1,  # the searcher ends it: a trial placed again is a new one to Tune
                max_concurrent_trials=_NO_LIMIT,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                callbacks=[driver.recorder, Forgetful()],
                failure_config=tune.FailureConfig(max_failures=0),  # the recorder's to judge
                verbose=0,
                **scratch,
            ),
        ).fit()


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether Tune says more than that a worker died, whose trial has gone on by now."""
    return not record.msg.startswith("Trials did not complete")


def _open_tracking(setting: Setting, study: Study) -> Tracking:
    tracked = track(
        study,
        root=setting.root,
        tracking_uri=setting.inputs.tracking_uri,
        commit=setting.options.commit,
    )
    return Tracking(tracked, on_run=lambda trial, run_id: keep_run_id(study, trial, run_id))


def _open_disk(setting: Setting) -> Disk:
    gigabytes = setting.options.keep_gb
    return Disk(
        setting.root,
        keep_bytes=None if gigabytes is None else gigabytes * 1e9,
        trial_bytes=checkpoint_bytes(setting.base),
        standings=lambda: read_standings(setting.inputs.study_url),
    )


def _finder(setting: Setting, study: Study) -> Callable[[str], TrialRecord | None]:
    def find(fingerprint: str) -> TrialRecord | None:
        found = setting.root.find_outcome(fingerprint)
        if found is None:
            return None
        trained_by, record = found
        source = "" if trained_by == study.study_name else trained_by
        return TrialRecord.from_json(record.to_json() | {"taken_over_from": source})

    return find


class _StopRequest:
    """A request that a sweep's trials checkpoint and end."""

    def __init__(self, setting: Setting, *, show: Callable[[str], None]) -> None:
        self._root, self._name, self._show = setting.root, setting.lock_name, show
        self._asked = threading.Event()
        self.problem = ""
        """Why no trial can go on, where that is why they end."""

    def is_set(self) -> bool:
        """Return whether they should end."""
        return self._asked.is_set()

    def ask(self, reason: str) -> None:
        """Ask, and say why."""
        self._asked.set()
        self._root.ask_to_stop(self._name)
        self._show(f"{reason}: trials write their checkpoints and end")

    def give_up(self, problem: str) -> None:
        """Ask since no trial can go on, unless they are ending already."""
        if not self.is_set():
            self.problem = problem
            self.ask(problem)


@contextlib.contextmanager
def _stop_on_signal(setting: Setting, *, show: Callable[[str], None]) -> Iterator[_StopRequest]:
    """Turn a signal into a request that trials checkpoint and end."""
    setting.root.forget_stop(setting.lock_name)
    stop = _StopRequest(setting, show=show)
    try:
        with stop_on_signal(stop.ask):
            yield stop
    finally:
        setting.root.forget_stop(setting.lock_name)
