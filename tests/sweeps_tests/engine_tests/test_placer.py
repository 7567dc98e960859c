"""Searcher, placer and recorder together, with a fake trainer: who gets which share, and when."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from tests_support.fake_sweep import new_study, open_sweep
from tests_support.machines import GB, gpu_capacity, machines

from sweeps.engine.disk import Disk
from sweeps.engine.outcomes import OUTGROWN
from sweeps.engine.placer import Placer
from sweeps.engine.recorder import Recorder
from sweeps.engine.root import Root
from sweeps.engine.search import StudySearcher
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.study_records import read_records
from trainer.config import METRIC

pytestmark = pytest.mark.usefixtures("one_thread")


class Sweep:
    """A driver without Ray, over a study that may have had others."""

    def __init__(self, root, study, *, trials=3, gpu_gb=16):
        self.capacity = gpu_capacity(gpu_bytes=gpu_gb * GB)
        told = {"note_peak": self.capacity.needs.note_peak, "device": self.capacity.device}
        self.sweep = open_sweep(study, trials=trials, **told)
        self.stopper = SweepStopper(last_step=80, report_every=10)
        self.heard = []
        self.machines = self.capacity.placement.machines
        disk = Disk(root, keep_bytes=None, trial_bytes=1, standings=lambda: [])
        self.wanted = []
        self.placer = Placer(
            self.capacity,
            disk,
            look=lambda: self.machines,
            want=lambda request, count: self.wanted.append((request.gpus, count)),
        )
        self.recorder = Recorder(
            self.sweep, self.stopper, self, self, root=root, placer=self.placer
        )
        self.is_stopping = False
        self.problem = ""
        stop = SimpleNamespace(is_set=lambda: self.is_stopping, give_up=self.give_up)
        self.searcher = StudySearcher(self.sweep, self.recorder, self.placer, stop)

    def give_up(self, problem):
        self.is_stopping, self.problem = True, problem

    def __getattr__(self, name):  # of MLflow and of who watches: every call is noted
        return lambda *given, **named: self.heard.append((name, *given))

    def begin(self):
        """Return what Tune would make a trial of, or the searcher's answer where that is none."""
        found = self.searcher.suggest("any")
        return (
            found
            if found in (None, Searcher.FINISHED)
            else SimpleNamespace(config=found, last_result={}, error_file=None)
        )

    def report(self, trial, step, value, peak_bytes=GB):
        row = {"step": step, METRIC: value, "seconds": 1.0, "peak_memory_bytes": peak_bytes}
        result = {"step": step, METRIC: value, "row": row, "peak_bytes": peak_bytes}
        action = self.stopper.on_trial_result(None, trial, result)
        self.recorder.on_trial_result(0, [], trial, result)
        return action

    def end(self, trial, outcome, **more):
        trial.last_result = {"ending": {"outcome": outcome, **more}}
        self.recorder.on_trial_complete(0, [], trial)


@pytest.fixture
def root(tmp_path):
    return Root.open("root", relative_to=tmp_path, create=True)


def test_a_trial_that_outgrew_its_share_comes_first_with_more_and_is_one_trial(root):
    sweep = Sweep(root, new_study(), trials=2)
    first, _ = sweep.begin(), sweep.begin()
    assert first.config["share_bytes"] == 2 * GB
    sweep.report(first, 10, 1.5)
    sweep.end(first, OUTGROWN, needed_bytes=2 * GB)
    again = sweep.begin()
    assert again.config["fingerprint"] == first.config["fingerprint"]
    assert (again.config["resources"]["GPU"], again.config["share_bytes"]) == (0.25, 4 * GB)
    sweep.report(again, 10, 1.5)  # told again, from its journal
    sweep.report(again, 80, 1.2)
    sweep.end(again, "finished", step=80)
    assert [step for name, _, *step in sweep.heard if name == "start_trial"] != []
    assert sum(name == "start_trial" for name, *_ in sweep.heard) == 2
    assert [row["step"] for name, _, row in (h for h in sweep.heard if h[0] == "add_row")] == [
        10,
        80,
    ]
    record = next(r for r in sweep.sweep.settled() if r.outcome == "finished")
    assert (record.value, record.restarts) == (1.2, 0)


def test_a_report_that_was_judged_is_not_judged_again_on_the_larger_share(root):
    sweep = Sweep(root, new_study())
    sweep.stopper.remember([("better", {20: 1.0})])
    trial = sweep.begin()
    sweep.stopper.remember([(trial.config["fingerprint"], {20: 0.9})])
    sweep.end(trial, OUTGROWN, needed_bytes=2 * GB)
    sweep.stopper.remember([(f"best {number}", {20: 0.1}) for number in range(4)])
    assert sweep.report(sweep.begin(), 20, 0.9) == TrialScheduler.CONTINUE


def test_the_next_driver_knows_what_a_trial_needs(root):
    study = new_study()
    before = Sweep(root, study, trials=1)
    trial = before.begin()
    before.end(trial, OUTGROWN, needed_bytes=5 * GB)
    assert Sweep(root, study, trials=1).begin().config["resources"]["GPU"] == 0.5
    elsewhere = Sweep(root, study, trials=1, gpu_gb=80)  # which need not be told the same
    assert elsewhere.begin().config["resources"]["GPU"] == 0.125


def test_a_sweep_is_not_over_while_a_running_trial_may_come_back(root):
    sweep = Sweep(root, new_study(), trials=1)
    trial = sweep.begin()
    assert sweep.begin() is None
    sweep.end(trial, OUTGROWN, needed_bytes=2 * GB)
    sweep.end(sweep.begin(), "failed", error="boom")
    assert sweep.begin() == Searcher.FINISHED


def test_trials_that_wait_want_as_many_machines_again_at_most(root):
    sweep = Sweep(root, new_study(), trials=5, gpu_gb=1)
    trials = [sweep.begin()]
    assert sweep.begin() is None
    sweep.machines = machines(*[(64, 1.0, 1, 1000)] * 3)
    trials += [sweep.begin(), sweep.begin()]
    assert sweep.begin() is None
    sweep.end(trials.pop(), "failed", error="boom")
    trials.append(sweep.begin())
    assert sweep.begin() is None
    for trial in trials:
        sweep.end(trial, "failed", error="boom")
    sweep.begin()
    assert sweep.begin() is None
    assert sweep.wanted == [(1.0, n) for n in (0, 1, 0, 0, 2, 0, 1, 0)]


def test_on_a_large_cluster_a_few_machines_are_wanted_at_a_time(root):
    sweep = Sweep(root, new_study(), trials=500, gpu_gb=1)
    sweep.machines = machines(*[(1, 1.0, 1, 8)] * 40)
    while sweep.begin() is not None:
        pass
    assert sweep.wanted == [(1.0, 0)] * 40 + [(1.0, 16)]


def test_a_sweep_in_which_no_trial_can_go_on_begins_no_other(root):
    sweep = Sweep(root, new_study(), trials=3)
    trial = sweep.begin()
    sweep.end(trial, "interrupted", error="no such folder", stops_sweep=True)
    assert sweep.begin() == Searcher.FINISHED
    assert sweep.problem == "no such folder"


def test_a_sweep_that_is_stopped_leaves_the_trial_that_waits_as_interrupted(root):
    study = new_study()
    sweep = Sweep(root, study, trials=1)
    sweep.end(sweep.begin(), OUTGROWN, needed_bytes=2 * GB)
    sweep.is_stopping = True
    assert sweep.begin() == Searcher.FINISHED
    sweep.recorder.leave_open()
    (record,) = read_records(study)
    assert record.outcome == "interrupted"
    assert [name for name, *_ in sweep.heard].count("end_trial") == 1
    assert Sweep(root, study, trials=1).begin().config["fingerprint"] == record.fingerprint


def test_a_trial_waits_until_all_of_its_share_is_free_and_no_smaller_one_passes_it(root):
    sweep = Sweep(root, new_study(), trials=4, gpu_gb=6)  # an eighth: less than CUDA's own
    running = [sweep.begin(), sweep.begin(), sweep.begin(), sweep.begin()]
    assert [trial.config["resources"]["GPU"] for trial in running] == [0.25] * 4
    sweep.end(running[0], OUTGROWN, needed_bytes=3 * GB // 2)
    assert sweep.begin() is None  # it needs half of the GPU
    sweep.end(running[1], "failed", error="boom")
    assert sweep.begin().config["fingerprint"] == running[0].config["fingerprint"]


def test_machines_that_come_are_used_and_those_that_go_are_missed(root):
    sweep = Sweep(root, new_study(), trials=40)
    running = [sweep.begin() for _ in range(8)]  # an eighth of a GPU each
    assert sweep.begin() is None
    sweep.machines = machines((64, 2.0, 16, 1000))
    running += [sweep.begin() for _ in range(8)]
    assert None not in running and sweep.begin() is None
    sweep.machines = machines((64, 1.0, 16, 1000))
    for trial in running[:8]:
        sweep.end(trial, "failed", error="boom")
        assert sweep.begin() is None
    sweep.end(running[8], "failed", error="boom")
    assert sweep.begin() is not None


def test_a_sweep_on_gpus_waits_for_another_when_the_last_has_gone(root):
    sweep = Sweep(root, new_study(), trials=4)
    sweep.machines = machines((64, 0.0, 0, 1000))
    assert sweep.begin().config["resources"]["GPU"] == 0.125
