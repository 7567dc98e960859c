from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from sweeps.engine.stopping import SweepStopper, build_stopper
from trainer.config import METRIC, TrainConfig
from trainer.sizes import SIZES

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def stopper(last_step=80, report_every=10):
    return SweepStopper(last_step=last_step, report_every=report_every)


def judge(scheduler, name, step, value):
    trial = SimpleNamespace(config={"fingerprint": name}, trial_id=f"tune-{name}")
    scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {"step": step, METRIC: value})


def test_rungs_lie_at_a_quarter_and_half_of_the_steps():
    assert stopper(last_step=80).rungs() == [20, 40]
    assert stopper(last_step=10_000, report_every=250).rungs() == [2500, 5000]
    assert stopper(last_step=22, report_every=1).rungs() == [6, 12]
    assert stopper(last_step=1001, report_every=25).rungs() == [275, 525]


@pytest.mark.parametrize("report_every", [1, 3, 10, 25])
@pytest.mark.parametrize("last_step", [22, 81, 83, 150])
def test_a_trial_is_stopped_at_the_rungs_that_are_told_and_nowhere_else(last_step, report_every):
    scheduler = stopper(last_step=last_step, report_every=report_every)
    reports = [*range(report_every, last_step, report_every), last_step]
    for step in reports:
        judge(scheduler, "good", step, 1.0)
    stops = []
    for bad_at in reports:
        values = {step: 9.0 if step == bad_at else 1.0 for step in reports if step <= bad_at}
        verdicts = [judge(scheduler, f"bad at {bad_at}", *report) for report in values.items()]
        stops += [bad_at] if STOP in verdicts else []
    assert stops == scheduler.rungs()
    assert len(stops) <= 2


@pytest.mark.parametrize("last_step", [1, 2, 3, 7, 50])
def test_the_shortest_trials_have_a_scheduler_too(last_step):
    scheduler = stopper(last_step=last_step, report_every=max(1, last_step // 8))
    assert judge(scheduler, "a", last_step, 9.0) == GO_ON
    assert all(rung < last_step for rung in scheduler.rungs())


def test_a_trial_in_the_worse_half_stops_at_its_rung_and_not_before():
    scheduler = stopper()
    judge(scheduler, "good", 20, 1.0)
    assert judge(scheduler, "bad", 10, 2.0) == GO_ON
    assert judge(scheduler, "bad", 20, 2.0) == STOP
    assert scheduler.stopped_at("bad") == 20
    assert scheduler.stopped_at("good") is None


def test_the_last_step_is_finished_and_never_stopped():
    scheduler = stopper()
    for name in ("good", "fair"):
        for step in (20, 40, 80):
            assert judge(scheduler, name, step, 1.0) == GO_ON
    assert judge(scheduler, "late", 80, 9.0) == GO_ON
    assert scheduler.stopped_at("late") is None


def test_a_report_without_the_metric_is_let_pass():
    trial = SimpleNamespace(config={"fingerprint": "a"}, trial_id="t")
    ending = {"ending": {"outcome": "diverged"}}
    assert stopper().on_trial_result(None, trial, ending) == GO_ON


def test_a_new_driver_remembers_what_the_old_one_saw():
    fresh, taught = stopper(), stopper()
    taught.remember([("good", {10: 1.2, 20: 1.0, 30: 0.9})])
    assert judge(fresh, "bad", 20, 2.0) == GO_ON
    assert judge(taught, "bad", 20, 2.0) == STOP


def test_a_resumed_trial_is_not_judged_twice_at_a_rung():
    scheduler = stopper()
    scheduler.remember([("mine", {20: 1.5}), ("other", {20: 1.0})])
    recorded = dict(scheduler._brackets[0]._rungs)[20]
    before = dict(recorded)
    assert judge(scheduler, "mine", 20, 1.5) == GO_ON
    assert recorded == before


def test_a_verdict_that_a_killed_driver_noted_holds():
    scheduler = stopper()
    scheduler.remember([("good", {20: 1.0})], stops={"bad": 20})
    assert [judge(scheduler, "bad", step, 0.5) for step in (10, 20)] == [GO_ON, STOP]
    assert scheduler.stopped_at("bad") == 20
    # and its value counts at the rung, as it would have without the kill
    assert judge(scheduler, "fair", 20, 0.7) == GO_ON
    assert judge(scheduler, "weak", 20, 0.9) == STOP


def test_a_sweep_side_by_side_stops_nothing():
    config = TrainConfig.from_fields(SIZES["demo"])
    lenient = build_stopper(config, stops_early=False)
    assert lenient.rungs() == []
    verdicts = {
        lenient.judge(f"trial {n}", step, float(n)) for step in (50, 100, 175) for n in range(8)
    }
    assert verdicts == {GO_ON}
    assert build_stopper(config).rungs() == [50, 100]
