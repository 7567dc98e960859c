"""Ray Tune at work: machines, slots, signals, and the trials of one sweep on them."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from optuna.study import Study
from ray import tune
from ray.tune import Trainable
from ray.tune.execution import class_cache
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.engine.disk import Disk
from sweeps.engine.gpu_memory import GpuMemory
from sweeps.engine.outcomes import TrialRecord, rank
from sweeps.engine.placement import Machines, Node
from sweeps.engine.placer import Placer
from sweeps.engine.progress import ProgressTable
from sweeps.engine.recorder import Recorder
from sweeps.engine.search import StudySearcher
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

WORKER_DEATHS_FORGIVEN = 3

_SHOWN_BY_TUNE = {n for n in class_cache.ENV_VARS_TO_PROPAGATE if n.startswith("AWS_")}
"""Variables that Tune would write into its actors' runtime environment, which Ray logs and its
dashboard shows. A worker that writes to an object store has keys of its own machine."""


@contextlib.contextmanager
def connect(gpu_memory: GpuMemory) -> Iterator[Machines]:
    """Join the cluster that this job runs on, or start Ray within this process."""
    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        with_gpu = [node["NodeID"] for node in alive if node["Resources"].get("GPU")]
        gpu_bytes = _ask_for_gpu_bytes(with_gpu, gpu_memory)
        yield Machines(nodes=tuple(_describe(node, gpu_bytes) for node in alive))
    finally:
        ray.shutdown()


def _ask_for_gpu_bytes(node_ids: Sequence[str], gpu_memory: GpuMemory) -> dict[str, int]:
    """Return the memory of a GPU by node, seen by a worker there: the driver may have none."""
    ask = ray.remote(num_cpus=0, num_gpus=0.01)(gpu_memory.total_bytes)
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in node_ids
    ]
    return dict(zip(node_ids, ray.get(asked), strict=True))


def _describe(node: Mapping[str, Any], gpu_bytes: Mapping[str, int]) -> Node:
    resources = node["Resources"]
    return Node(
        cpus=int(resources.get("CPU", 0)),
        gpus=resources.get("GPU", 0.0),
        gpu_bytes=gpu_bytes.get(node["NodeID"], 0),
        memory_bytes=int(resources.get("memory", 0)),
    )


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The parts of a sweep's driver, put together."""

    study: SweepStudy
    stopper: SweepStopper
    tracking: Tracking
    recorder: Recorder
    searcher: StudySearcher


def run_trials(
    setting: Setting,
    study: Study,
    *,
    show: Callable[[str], None],
    build: Callable[[TrialContext], type[Trainable]] = build_trainable,
) -> bool:
    """Train until the study has the trials asked for, or a signal asks to stop.

    `build` makes what Tune runs a trial by. Return whether it came to the end and MLflow has all of
    it: after a signal, time is short.
    """
    with _stop_on_signal(setting, show=show) as stop:
        driver = build_driver(setting, study, show=show, is_stopping=stop.is_set)
        try:
            _tune(setting, driver, build(_context(setting)))
            driver.recorder.leave_open()
        finally:
            ranked = rank(read_records(study))
            undelivered = driver.tracking.close(ranked, is_hurried=stop.is_set)
    if undelivered:
        show(
            f"MLflow lacks something of {undelivered} trials: the same command writes it, "
            f"or {setting.options.unshift_command} sync"
        )
    if stop.is_set():
        show("stopped: trials that had not finished go on with the same command")
    return not stop.is_set() and not undelivered


def build_driver(
    setting: Setting,
    study: Study,
    *,
    show: Callable[[str], None],
    is_stopping: Callable[[], bool],
) -> Driver:
    """Put the parts of a driver together, knowing what earlier drivers of this study left."""
    watcher = ProgressTable(read_facts(study)["do_nothing"][METRIC], show=show)
    sweep_study = SweepStudy(study, setting.plan, find_finished=_finder(setting, study))
    stopper = build_stopper(setting.base, stops_early=setting.sweep.stops_early)
    stopper.remember(sweep_study.curves(), stops=sweep_study.stops())
    tracking = _open_tracking(setting, study)
    placer = Placer(setting.capacity, _open_disk(setting))
    recorder = Recorder(
        sweep_study,
        stopper,
        tracking,
        watcher,
        root=setting.root,
        placer=placer,
    )
    recorder.catch_up(sweep_study.settled())
    searcher = StudySearcher(sweep_study, recorder, placer, is_stopping=is_stopping)
    return Driver(
        study=sweep_study,
        stopper=stopper,
        tracking=tracking,
        recorder=recorder,
        searcher=searcher,
    )


def _context(setting: Setting) -> TrialContext:
    return TrialContext(
        storage=setting.root.place,
        sweep=setting.lock_name,
        commit=setting.options.commit,
        gpu_memory=setting.sweep.gpu_memory,
    )


def _tune(setting: Setting, driver: Driver, trainable: type[Trainable]) -> None:
    placed = tune.with_resources(
        trainable,
        # Tune gives a worker to another trial only where both ask for the same.
        lambda assignment: tune.PlacementGroupFactory([assignment["resources"]]),
    )
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_SHOWN_BY_TUNE)
    # Tune's own state is of no use: the study is what a sweep goes on from.
    with setting.root.lend_scratch() as scratch:
        tune.Tuner(
            placed,
            tune_config=tune.TuneConfig(
                search_alg=driver.searcher,
                scheduler=driver.stopper,
                num_samples=-1,  # the searcher ends it: a trial placed again is a new one to Tune
                max_concurrent_trials=setting.placement.most,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                callbacks=[driver.recorder],
                failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS_FORGIVEN),
                verbose=0,
                **scratch,
            ),
        ).fit()


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


@contextlib.contextmanager
def _stop_on_signal(setting: Setting, *, show: Callable[[str], None]) -> Iterator[threading.Event]:
    """Turn a signal into a request that trials checkpoint and end."""
    root, name = setting.root, setting.lock_name
    root.forget_stop(name)

    def ask(signal_name: str) -> None:
        root.ask_to_stop(name)
        show(f"{signal_name}: trials write their checkpoints and end")

    try:
        with stop_on_signal(ask) as asked:
            yield asked
    finally:
        root.forget_stop(name)
