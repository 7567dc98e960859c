from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from tests_support.fake_sweep import new_study, open_sweep

from sweeps.engine.recorder import Recorder
from sweeps.engine.root import Root
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.study_records import read_records
from trainer.config import METRIC


class Listener:
    """Stands for MLflow and for who watches: notes every call."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        return lambda *arguments, **named: self.heard.append((name, *arguments, *named.values()))

    def count(self, name):
        return sum(call[0] == name for call in self.heard)


class Places(Listener):
    """Stands for what places trials, of which there is one."""

    def is_placed(self, name):
        return not self.count("lose") and not self.count("give_back")


@pytest.fixture
def desk(tmp_path):
    """A recorder at work on one trial: its parts, and the trial as Tune has it."""
    study = new_study()
    sweep = open_sweep(study, trials=3)
    stopper = SweepStopper(last_step=80, report_every=10)
    root = Root.open("root", relative_to=tmp_path, create=True)
    tracking, watcher, placer = Listener(), Listener(), Places()
    recorder = Recorder(sweep, stopper, tracking, watcher, root=root, placer=placer)
    suggestion = sweep.next()
    recorder.begin(suggestion)
    (root.trials / suggestion.fingerprint).mkdir(parents=True)
    trial = SimpleNamespace(
        config={"fingerprint": suggestion.fingerprint}, last_result={}, error_file=None
    )
    return SimpleNamespace(**locals())


def report(desk, step, value):
    row = {"step": step, METRIC: value, "seconds": 2.0 * step, "peak_memory_bytes": 1000 - step}
    result = {"step": step, METRIC: value, "row": row}
    desk.trial.last_result = result
    action = desk.stopper.on_trial_result(None, desk.trial, result)
    desk.recorder.on_trial_result(0, [], desk.trial, result)
    return action


def end(desk, **ending):
    desk.trial.last_result = {"ending": ending} if ending else desk.trial.last_result
    desk.recorder.on_trial_complete(0, [], desk.trial)
    (record,) = read_records(desk.study)
    return record


def test_a_finished_trial_has_its_best_and_last_value_and_the_largest_peak(desk):
    for step, value in ((40, 1.3), (60, 1.2), (80, 1.4)):
        report(desk, step, value)
    record = end(desk, outcome="finished", step=80)
    assert (record.outcome, record.value, record.last_value) == ("finished", 1.2, 1.4)
    assert (record.seconds, record.peak_memory_bytes) == (160.0, 960)
    assert record.parameters == 1_076_546
    assert desk.root.find_outcome(record.fingerprint) == (desk.study.study_name, record)


def test_the_report_that_stopped_a_trial_is_told_too(desk):
    desk.stopper.remember([("other", {20: 1.0})])
    assert report(desk, 20, 1.5) == TrialScheduler.STOP
    record = end(desk)
    assert (record.outcome, record.step, record.last_value) == ("stopped", 20, 1.5)
    assert desk.study.get_trials()[0].intermediate_values == {20: 1.5}


def test_a_verdict_is_noted_before_the_value_that_led_to_it(desk, monkeypatch):
    """A driver killed between the two would forget why, and let the trial train on."""
    desk.stopper.remember([("other", {20: 1.0})])
    noted = []
    monkeypatch.setattr(desk.sweep, "report", lambda *a, **k: noted.append(desk.sweep.stops()))
    assert report(desk, 20, 1.5) == TrialScheduler.STOP
    assert noted == [{desk.suggestion.fingerprint: 20}]
    after_the_kill = SweepStopper(last_step=80, report_every=10)
    after_the_kill.remember(desk.sweep.curves(), stops=desk.sweep.stops())
    desk.stopper = after_the_kill
    assert report(desk, 20, 1.5) == TrialScheduler.STOP


CRASH = "ray.exceptions.ActorDiedError: the worker died"
OUT_OF_MEMORY = "ray.exceptions.OutOfMemoryError: the node ran low"
MACHINE_LOST = "The actor 7d65 is unavailable: The actor is temporarily unavailable: RpcError"
MACHINE_DEAD = "The actor died because its node has died. Node Id: faf9"
"""As Ray 2.60 tells of actors, shortened."""


def die(desk, *texts):
    """Let a trial's worker die, as Tune tells it: the last of the errors in its file is new."""
    path = desk.tmp_path / "error.txt"
    path.write_text("".join(f"Failure # {n}\n{text}\n" for n, text in enumerate(texts, 1)))
    desk.trial.error_file = str(path)
    desk.placer.heard.clear()  # the trial has its place
    desk.recorder.on_trial_error(0, [], desk.trial)


@pytest.mark.parametrize(("text", "times"), [(CRASH, 3), (MACHINE_LOST, 30), (MACHINE_DEAD, 30)])
def test_a_trial_whose_worker_dies_goes_on_so_many_times_and_has_failed_then(desk, text, times):
    for restarts in range(1, times + 1):
        die(desk, text)
        assert desk.placer.heard == [("lose", desk.suggestion.fingerprint)]
        assert desk.sweep.restarts(desk.suggestion.fingerprint) == restarts
    assert [each.outcome for each in read_records(desk.study)] == ["interrupted"]  # so far
    die(desk, text)
    assert ("give_back", desk.suggestion.fingerprint) in desk.placer.heard
    (record,) = read_records(desk.study)
    assert (record.outcome, record.restarts) == ("failed", times)
    assert record.error == f"its worker died: {text}"


def test_lost_machines_are_not_counted_with_crashes(desk):
    for text in (CRASH, MACHINE_LOST, CRASH, MACHINE_DEAD, CRASH, MACHINE_LOST):
        die(desk, text)
    assert [each.outcome for each in read_records(desk.study)] == ["interrupted"]  # so far
    assert end(desk, outcome="diverged", step=80).restarts == 6


def test_a_trial_that_ran_out_of_memory_is_not_tried_again(desk):
    die(desk, CRASH, OUT_OF_MEMORY)
    (record,) = read_records(desk.study)
    assert (record.outcome, record.restarts) == ("out_of_memory", 0)
    assert record.error == f"its worker died: {OUT_OF_MEMORY}"


def test_a_crash_before_is_no_reason_to_call_this_one_out_of_memory(desk):
    die(desk, OUT_OF_MEMORY, CRASH)
    assert desk.placer.count("lose") == 1


def test_one_death_that_tune_tells_twice_is_counted_once(desk):
    die(desk, CRASH)
    desk.recorder.on_trial_error(0, [], desk.trial)
    assert desk.sweep.restarts(desk.suggestion.fingerprint) == 1
    assert desk.placer.count("lose") == 1


def test_a_trial_that_tune_starts_again_by_itself_is_counted(desk):
    """As it does where a machine is taken back with notice."""
    (desk.tmp_path / "error.txt").write_text(f"Failure # 0\n{MACHINE_DEAD}\n")
    desk.trial.error_file = str(desk.tmp_path / "error.txt")
    desk.recorder.on_trial_recover(0, [], desk.trial)
    assert desk.sweep.restarts(desk.suggestion.fingerprint) == 1
    assert desk.placer.count("lose") == 0


def test_what_all_trials_would_meet_ends_the_sweep_and_not_the_trial(desk):
    record = end(desk, outcome="interrupted", error="no such folder", stops_sweep=True)
    assert (record.outcome, record.error) == ("interrupted", "no such folder")
    assert desk.recorder.problem == "no such folder"


def test_what_is_one_trials_own_ends_no_sweep(desk):
    end(desk, outcome="failed", error="RuntimeError: boom")
    assert not desk.recorder.problem


def test_a_revived_worker_that_tells_its_journal_again_is_heard_once(desk):
    for step, value in ((10, 1.5), (20, 1.4), (10, 1.5), (20, 1.4), (30, 1.3)):
        report(desk, step, value)
    assert desk.tracking.count("add_row") == 3
    assert desk.watcher.count("row") == 3
    assert desk.study.get_trials()[0].intermediate_values == {10: 1.5, 20: 1.4, 30: 1.3}


LOW_MEMORY = """Failure # 4 (occurred at 2026-11-25_17-45-08)
1 worker(s) were killed due to the node running low on memory. Memory on the node was 9.38GB used
OOM kill reason: Memory usage 10031771648B exceeded threshold of 252760624B
Top 10 memory users:
PID	MEM(GB)	COMMAND
24152	0.18	somebody --password=secret
Refer to the documentation on how to address the out of memory issue
"""
"""As Ray 2.60 tells of an actor, shortened."""


def test_of_a_worker_that_ray_killed_for_memory_only_that_is_kept(desk, tmp_path):
    (tmp_path / "error.txt").write_text(LOW_MEMORY)
    desk.trial.error_file = str(tmp_path / "error.txt")
    desk.recorder.on_trial_error(0, [], desk.trial)
    (record,) = read_records(desk.study)
    assert record.outcome == "out_of_memory"
    assert record.error == f"its worker died: {LOW_MEMORY.splitlines()[1]}"
    told = [call for call in desk.tracking.heard if call[0] == "end_trial"]
    assert len(told) == 1 and "low on memory" in str(told) and "secret" not in str(told)


def test_a_trial_is_settled_once_however_often_tune_says_it_ended(desk):
    end(desk, outcome="failed", error="boom")
    assert end(desk, outcome="finished").outcome == "failed"
    assert desk.tracking.count("end_trial") == 1
