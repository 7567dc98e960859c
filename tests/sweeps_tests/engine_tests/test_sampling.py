import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from tests_support.fake_sweep import new_study, space

from sweeps.engine.sampling import SweepSampler, from_unit_interval


def startup_points(seed, count=16):
    study = new_study()
    study.sampler = SweepSampler(seed, startup=count)
    points = []
    for _ in range(count):
        trial = study.ask()
        points.append(space(trial))
        study.tell(trial, 1.0)
    return points


def test_startup_points_fill_the_space_evenly():
    rates = [math.log10(point["optimizer.lr"]) for point in startup_points(seed=3)]
    counts, _ = np.histogram(rates, bins=4, range=(-4, -1))
    assert counts.min() >= 3  # 16 random points leave a quarter with fewer than 3 nearly always


def test_startup_fields_do_not_move_together():
    points = startup_points(seed=3)
    rates = [math.log10(point["optimizer.lr"]) for point in points]
    momenta = [point["optimizer.momentum"] for point in points]
    assert abs(np.corrcoef(rates, momenta)[0, 1]) < 0.4


def test_startup_points_follow_from_seed_and_number_alone():
    assert startup_points(seed=3) == startup_points(seed=3)
    assert startup_points(seed=3)[0] != startup_points(seed=4)[0]


def test_later_trials_crowd_around_the_best():
    study = new_study()
    study.sampler = SweepSampler(0, startup=8)
    distances = []
    for _ in range(40):
        trial = study.ask()
        distance = abs(math.log10(space(trial)["optimizer.lr"]) + 2.5)
        distances.append(distance)
        study.tell(trial, distance)
    assert np.median(distances[-10:]) < 0.5 * np.median(distances[:8])


def branching(trial):
    """Choose two fields, and a third that not all trials have."""
    fields = space(trial)
    if trial.suggest_categorical("model.family", ["waveform", "frames"]) == "frames":
        fields["model.blocks"] = trial.suggest_int("model.blocks", 1, 4)
    return fields


def test_the_fields_chosen_together_are_those_that_tpe_finds_by_itself():
    study = new_study()
    study.sampler = sampler = SweepSampler(0, startup=0)
    seen = []
    for number in range(12):
        trial = study.ask()
        branching(trial)
        alone = TPESampler(multivariate=True).infer_relative_search_space(study, trial)
        assert sampler.infer_relative_search_space(study, trial) == alone
        seen.append(alone.keys())
        if number % 3:  # the others stay open
            study.tell(trial, state=(TrialState.PRUNED, TrialState.FAIL)[number % 2])
    assert len(set(map(tuple, seen))) > 1, "else this would show nothing"


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(1.0, 3.0), [1.0, 2.0, 3.0]),
        (FloatDistribution(1e-4, 1e-2, log=True), [1e-4, 1e-3, 1e-2]),
        (FloatDistribution(0.0, 1.0, step=0.5), [0.0, 0.5, 1.0]),
        (IntDistribution(7, 11, step=2), [7, 9, 11]),
        (IntDistribution(1, 100, log=True), [1, 10, 100]),
        (CategoricalDistribution(("a", "b", "c")), ["a", "b", "c"]),
    ],
)
def test_every_kind_of_field_is_covered_from_end_to_end(distribution, values):
    nearly_one = 1 - 1e-12
    drawn = [from_unit_interval(u, distribution) for u in (0.0, 0.5, nearly_one)]
    assert drawn == pytest.approx(values) if values != ["a", "b", "c"] else drawn == values
    assert all(distribution._contains(distribution.to_internal_repr(v)) for v in drawn)


def test_the_sampler_warns_of_nothing_experimental_or_deprecated(recwarn):
    startup_points(seed=0, count=2)
    study = new_study()
    study.sampler = SweepSampler(0, startup=0)
    space(study.ask())
    kinds = (optuna.exceptions.ExperimentalWarning, FutureWarning)
    assert [w for w in recwarn if issubclass(w.category, kinds)] == []
