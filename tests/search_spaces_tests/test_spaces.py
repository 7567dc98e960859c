"""What every search space keeps to, found by listing."""

import importlib
import pkgutil

import optuna
import pytest

import search_spaces
from trainer.config import TrainConfig
from trainer.sizes import SIZES

MODULES = [
    importlib.import_module(f"search_spaces.{module.name}")
    for module in pkgutil.iter_modules(search_spaces.__path__)
]
SPACES = [module for module in MODULES if hasattr(module, "suggest")]


def samples(space, count=200):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
def test_every_sample_is_a_configuration_of_its_own(space, size):
    configs = [TrainConfig.from_fields({**SIZES[size], **fields}) for fields in samples(space)]
    assert len({config.fingerprint("") for config in configs}) == len(configs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
def test_known_points_lie_in_the_space(space, size):
    for point in space.KNOWN_POINTS:
        TrainConfig.from_fields({**SIZES[size], **point})
        chosen = space.suggest(optuna.trial.FixedTrial(dict(point)))  # warns when it is outside
        assert chosen == dict(point)


def test_the_logs_best_rates_are_tried_first():
    from search_spaces.lr_momentum import KNOWN_POINTS

    assert {p["optimizer.momentum"] for p in KNOWN_POINTS} == {TrainConfig().optimizer.momentum}
    rates = [(p["optimizer.lr"], p["optimizer.adamw_lr"]) for p in KNOWN_POINTS]
    assert rates == [(5e-3, 5e-4), (2e-3, 3e-4), (1e-2, 1e-3), (1e-3, 1e-4)]
