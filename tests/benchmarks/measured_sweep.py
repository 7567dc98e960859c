"""A sweep's driver at work, its parts timed: what scale.py runs, once the environment is set."""

import contextlib
import functools
import time
from collections import defaultdict

import psutil
from ray.tune import ExperimentAnalysis
from ray.tune.execution.tune_controller import TuneController
from ray.tune.trainable.function_trainable import wrap_function
from tests_support.simulated_sweep import SWEEP, open_driver, play
from tests_support.simulated_trainer import NUMBERS, build_simulated

from sweeps.engine.machines import connect
from sweeps.engine.mlflow_runs import SweepRuns
from sweeps.engine.outcomes import rank
from sweeps.engine.recorder import Recorder
from sweeps.engine.root import Root
from sweeps.engine.search import StudySearcher
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.study import SweepStudy
from sweeps.engine.study_records import read_records
from sweeps.engine.tracking import Tracking
from sweeps.engine.tuning import run_trials

MARKS = (100, 1_000, 2_500, 5_000)
"""Trials ended, at which it is shown how far it came."""
ROWS_DUE = 2_000
"""A driver that nobody trains for is faster than any MLflow: beyond so many it is held back."""


def measure_alone(setting, given):
    """Play a sweep without Ray and print its table."""
    watched = Watched()
    if given.without_mlflow:
        Tracking._add = lambda *arguments: None
    study = setting.open_study()
    driver = open_driver(setting, study)
    held_s = 0.0

    def hold_back():
        nonlocal held_s
        began_s = time.perf_counter()
        while watched.rows_due > ROWS_DUE and not given.without_mlflow:
            time.sleep(0.05)
        held_s += time.perf_counter() - began_s

    began_s, used_s = time.perf_counter(), time.thread_time()
    play(driver, setting.root.trials, workers=given.workers, on_step=hold_back)
    took_s, used_s = time.perf_counter() - began_s, time.thread_time() - used_s
    closing_s = time.perf_counter()
    records = read_records(study)
    lacking = driver.tracking.close(rank(records), timeout_s=900.0)
    closed_s = time.perf_counter()
    watched.clock.print_parts()
    count, points = len(records), watched.reports * NUMBERS
    print(
        f"\n{count:,} trials, {watched.reports:,} reports ({watched.reports / count:.1f} a trial)"
    )
    print(f"driver: {took_s:.0f} s, {held_s:.0f} of them held back for MLflow; cpu {used_s:.0f} s")
    total_s = closed_s - began_s
    print(f"MLflow: {points:,} points in {total_s:.0f} s, {points / total_s:.0f} a second")
    print(f"closing (dues, {count:,} ranks): {closed_s - closing_s:.0f} s, lacking {lacking}")
    began_s = time.perf_counter()
    again = open_driver(setting, study)
    print(f"the same command again: {time.perf_counter() - began_s:.1f} s until it proposes")
    watched.show()
    again.tracking.close(rank(records), timeout_s=900.0)


def measure_ray(setting, given):
    """Run a sweep by the Ray that there is, an actor a worker, and print its table."""
    watched = Watched()
    for owner, method, part in (
        (TuneController, "step", "Tune: a step, all"),
        (ExperimentAnalysis, "__init__", "Tune: looks for all results, at the end"),
    ):
        watched.clock.watch(owner, method, part)
    with connect(SWEEP.gpu_memory, show=print) as view:
        study = setting.open_study()
        trials, step_s = setting.root.trials, given.step_s
        before_s = busy_seconds()
        began_s, used_s = time.perf_counter(), time.thread_time()
        run_trials(
            setting,
            study,
            view,
            show=lambda line: None,
            build=lambda _: wrap_function(build_simulated(trials, step_s=step_s)),
        )
        took_s, used_s = time.perf_counter() - began_s, time.thread_time() - used_s
        after_s = busy_seconds()
    watched.clock.print_parts()
    parts = ("start: all", "report: judge (ASHA)", "report: all but judging", "end: all")
    ours_s = sum(watched.clock.total_s(part, cpu=True) for part in parts)
    count, reports = len(read_records(study)), watched.reports
    print(f"\n{count:,} trials, {reports:,} reports in {took_s:.0f} s")
    print(f"driver's thread: cpu {used_s:.0f} s, {ours_s:.0f} of it our parts")
    for name, seconds in after_s.items():
        print(f"{name}: cpu {seconds - before_s.get(name, 0):.0f} s")


def busy_seconds():
    """Return the processor time so far of Ray's servers and of all actors, by name."""
    found = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            name, times = process.name(), process.cpu_times()
            kind = "actors" if name.startswith("ray::") else name
            if kind in ("actors", "gcs_server", "raylet"):
                found[kind] += times.user + times.system
    return dict(found)


class Stopwatch:
    """Seconds of calls by part, each beside how many trials had ended by then."""

    def __init__(self):
        self.ended = 0
        self._calls = defaultdict(list)

    def watch(self, owner, method, part):
        """Time a method of an object, or of all objects of a class, from now on."""
        real = getattr(owner, method)

        @functools.wraps(real)
        def timed(*arguments, **named):
            began, used = time.perf_counter(), time.thread_time()
            try:
                return real(*arguments, **named)
            finally:
                took = time.perf_counter() - began, time.thread_time() - used
                self._calls[part].append((self.ended, *took))

        setattr(owner, method, timed)

    def count(self, part):
        """Return how often a part was called."""
        return len(self._calls[part])

    def total_s(self, part, *, cpu=False):
        """Return the sum of a part's calls."""
        return sum(call[1 + cpu] for call in self._calls[part])

    def mean_ms(self, part, *, near):
        """Return the mean of a part's calls among the last 10% of so many trials."""
        found = [seconds for ended, seconds, _ in self._calls[part] if 0.9 * near < ended <= near]
        return f"{1000 * sum(found) / len(found):.2f}" if found else "-"

    def print_parts(self):
        """Print each part's mean at the marks so far, over all, and as a sum."""
        marks = [mark for mark in MARKS if mark <= self.ended]
        head = "".join(f"{f'at {mark:,}':>10}" for mark in marks)
        print(f"\n{'ms a call':<36}{head}{'all':>10}{'cpu':>10}{'calls':>10}{'sum s':>10}")
        for part in sorted(self._calls):
            count = self.count(part)
            means = [self.mean_ms(part, near=mark) for mark in marks]
            cells = [*means, *(f"{1000 * self.total_s(part, cpu=c) / count:.2f}" for c in (0, 1))]
            row = "".join(f"{cell:>10}" for cell in cells)
            print(f"{part:<36}{row}{count:>10,}{self.total_s(part):>10.1f}", flush=True)


class Watched:
    """Every driver of this process, its parts timed, and MLflow's writer watched."""

    def __init__(self):
        self.clock = Stopwatch()
        self._rows_written = 0
        self._began_s = time.perf_counter()
        for owner, method, part in (
            (StudySearcher, "suggest", "start: all"),
            (SweepStudy, "next", "start: propose"),
            (Recorder, "begin", "start: open its books"),
            (SweepStopper, "on_trial_result", "report: judge (ASHA)"),
            (Recorder, "on_trial_result", "report: all but judging"),
            (SweepStudy, "report", "report: tell the study"),
            (Tracking, "add_row", "report: hand to MLflow's writer"),
            (Recorder, "on_trial_complete", "end: all"),
            (SweepStudy, "settle", "end: tell the study"),
            (Root, "read_record_text", "end: files"),
            (Root, "find_outcome", "end: files"),
            (Root, "keep_outcome", "end: files"),
            (SweepRuns, "write", "MLflow's writer: a trial's dues"),
        ):
            self.clock.watch(owner, method, part)
        self._watch_rows()
        self._watch_ends()

    @property
    def reports(self):
        """Return how many reports the driver has taken."""
        return self.clock.count("report: hand to MLflow's writer")

    @property
    def rows_due(self):
        """Return how many rows wait to be written to MLflow."""
        return self.reports - self._rows_written

    def show(self):
        """Print how far it came, and what of memory it took."""
        resident_mb = psutil.Process().memory_info().rss / 1e6
        print(
            f"{self.clock.ended:,} ended after {time.perf_counter() - self._began_s:.0f} s: "
            f"{resident_mb:.0f} MB resident, {self.rows_due:,} rows due to MLflow",
            flush=True,
        )

    def _watch_rows(self):
        real = SweepRuns.write

        def counted(runs, fingerprint, dues):
            rows = len(dues.rows)
            real(runs, fingerprint=fingerprint, dues=dues)
            self._rows_written += rows

        SweepRuns.write = counted

    def _watch_ends(self):
        real = Recorder.on_trial_complete

        def counted(*arguments, **named):
            real(*arguments, **named)
            self.clock.ended += 1
            if self.clock.ended in MARKS:
                self.show()
                self.clock.print_parts()

        Recorder.on_trial_complete = counted
