import math
import typing

import pytest

from trainer.optimizer_config import OptimizerConfig
from trainer.schedule import rate_share

SCHEDULES = typing.get_args(typing.get_type_hints(OptimizerConfig)["schedule"])


def shares(*, steps, warmup_steps, schedule):
    return [
        rate_share(step, steps=steps, warmup_steps=warmup_steps, schedule=schedule)
        for step in range(1, steps + 1)
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_rises_from_nothing_in_equal_steps_to_all(schedule):
    found = shares(steps=10, warmup_steps=4, schedule=schedule)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0


def test_constant_stays():
    assert set(shares(steps=10, warmup_steps=0, schedule="constant")) == {1.0}


def test_cosine_is_half_a_cosine_from_all_to_nothing_after_the_last_step():
    found = shares(steps=8, warmup_steps=0, schedule="cosine")
    # cos(x)**2 at half the angle is (1 + cos(x)) / 2, written otherwise than in schedule.py.
    expected = [math.cos(math.pi * step / 16) ** 2 for step in range(8)]
    assert found == pytest.approx(expected, abs=1e-15)
    assert rate_share(9, steps=8, warmup_steps=0, schedule="cosine") == 0.0


def test_cosine_has_what_a_warm_up_leaves_of_the_steps():
    after = shares(steps=12, warmup_steps=4, schedule="cosine")[4:]
    assert after == shares(steps=8, warmup_steps=0, schedule="cosine")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_longer_than_training_never_ends(schedule):
    assert shares(steps=3, warmup_steps=6, schedule=schedule) == [1 / 6, 2 / 6, 3 / 6]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_step_of_training_is_without_a_rate(schedule):
    assert min(shares(steps=1000, warmup_steps=10, schedule=schedule)) > 0


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_a_step_after_the_last_has_nothing_of_a_cosine_left(warmup_steps):
    """A rehearsal takes two steps, however few training has."""
    beyond = {"steps": 1, "warmup_steps": warmup_steps, "schedule": "cosine"}
    assert rate_share(3, **beyond) == 0.0
