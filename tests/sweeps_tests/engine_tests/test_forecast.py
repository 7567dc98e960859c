import pytest

from sweeps.engine.forecast import expect_stopping
from trainer.config import TrainConfig
from trainer.sizes import SIZES

DEMO = TrainConfig.from_fields(SIZES["demo"])  # 200 steps, a report every 25; rungs at 50 and 100


def test_a_lone_trial_runs_to_its_end():
    found = expect_stopping(DEMO, trials=1, slots=2)
    assert found.reaching == {50: 1, 100: 1, 200: 1}
    assert (found.steps, found.duration_steps) == (200, 200)


def test_about_half_of_many_trials_pass_each_rung():
    found = expect_stopping(DEMO, trials=400, slots=8)
    # Half, and the first arrivals besides, who are judged against fewer.
    assert found.reaching[50] == 400
    assert 0.48 < found.reaching[100] / 400 < 0.55
    assert 0.23 < found.reaching[200] / 400 < 0.3


def test_steps_are_those_of_trials_by_where_they_end():
    found = expect_stopping(DEMO, trials=16, slots=2)
    at_50, at_100, to_end = (found.reaching[step] for step in (50, 100, 200))
    by_rung = 50 * (at_50 - at_100) + 100 * (at_100 - to_end) + 200 * to_end
    assert found.steps == pytest.approx(by_rung)


def test_slots_share_the_steps():
    alone = expect_stopping(DEMO, trials=16, slots=1)
    assert alone.duration_steps == pytest.approx(alone.steps)
    shared = expect_stopping(DEMO, trials=16, slots=4)
    assert shared.steps / 4 <= shared.duration_steps < 1.4 * shared.steps / 4


def test_more_slots_than_trials_take_as_long_as_one_trial():
    assert expect_stopping(DEMO, trials=3, slots=50).duration_steps == 200


def test_a_last_report_off_the_beat_counts_as_the_end():
    config = TrainConfig.from_fields({**SIZES["demo"], "steps": 110})
    found = expect_stopping(config, trials=1, slots=1)
    assert (found.steps, found.duration_steps, max(found.reaching)) == (110, 110, 110)


def test_a_trial_of_one_step_is_no_error():
    config = TrainConfig.from_fields({**SIZES["demo"], "steps": 1, "report_every": 1})
    assert expect_stopping(config, trials=4, slots=2).steps == 4
