"""What every search space keeps to, found by listing the modules that define `suggest`."""

import importlib
import pkgutil
import warnings
from collections import defaultdict

import optuna
import pytest
from tests_support.drawn_trial import Drawing, Extreme

import search_spaces
from search_spaces.space import LOG, SearchSpace, Shared
from trainer.config import TrainConfig
from trainer.loss_config import CRITIC_TERMS, FOREIGN_TERMS
from trainer.sizes import SIZES

MODULES = [
    importlib.import_module(f"search_spaces.{module.name}")
    for module in pkgutil.iter_modules(search_spaces.__path__)
]
SPACES = {
    module.__name__.rsplit(".", 1)[-1]: module for module in MODULES if hasattr(module, "suggest")
}
each_space = pytest.mark.parametrize("space", SPACES)
each_size = pytest.mark.parametrize("size", SIZES)
ABSENT = {"all terms": frozenset(), "no foreign terms": frozenset(FOREIGN_TERMS)}
each_absence = pytest.mark.parametrize("absent", ABSENT.values(), ids=ABSENT)

WHERE_CONDITIONAL_FIELDS_MEAN_SOMETHING = {
    "optimizer.adamw_lr": lambda config: config.optimizer.name == "muon_adamw",
    "optimizer.preconditioner_probability": lambda config: config.optimizer.name == "psgd",
    "loss.balance": lambda config: len(config.loss.weights) > 1,
    "loss.dac_blocks": lambda config: config.loss.dac is not None,
    "loss.dac_features": lambda config: config.loss.dac is not None,
    "loss.encodec_blocks": lambda config: config.loss.encodec is not None,
    "loss.encodec_features": lambda config: config.loss.encodec is not None,
}


def build(space, size, absent=frozenset()):
    module = SPACES[space]
    if hasattr(module, "space_for"):
        shared = TrainConfig.from_fields(SIZES[size]).to_fields()
        return module.space_for(Shared(size=size, fields=shared, absent_terms=absent))
    return SearchSpace(suggest=module.suggest, known_points=module.KNOWN_POINTS)


def configure(size, fields):
    return TrainConfig.from_fields({**SIZES[size], **fields})


def choose_known(space, point):
    """Return the fields of a known point. A value outside the space warns, which is an error."""
    trial = optuna.trial.FixedTrial(dict(point))
    fields = space.suggest(trial)
    assert set(trial.params) == set(point), "a known point names what is not asked for"
    return fields


def test_the_logs_questions_all_have_a_space():
    assert set(SPACES) == {
        "clip_batch",
        "depth_channels",
        "everything",
        "kernel_size",
        "loss_mix",
        "lr_momentum",
        "optimizer",
        "research_log",
    }


@each_size
@each_space
def test_500_samples_are_configurations_with_no_meaningless_field(space, size):
    searched = build(space, size)
    for seed in range(500):
        fields = searched.suggest(Drawing(seed))
        config = configure(size, fields)
        meaningless = [
            name
            for name, means in WHERE_CONDITIONAL_FIELDS_MEAN_SOMETHING.items()
            if name in fields and not means(config)
        ]
        assert meaningless == [], fields


@each_size
@each_space
def test_what_is_chosen_is_what_is_trained(space, size):
    """A field is neither rounded nor resolved away on its way into the configuration."""
    searched = build(space, size)
    for seed in range(20):
        fields = searched.suggest(Drawing(seed))
        trained = configure(size, fields).to_fields()
        chosen = {n: list(v) if isinstance(v, tuple) else v for n, v in fields.items()}
        assert {name: trained[name] for name in fields} == chosen


@each_size
@each_space
def test_every_end_of_every_range_can_be_trained(space, size):
    """Draws ends alone until each end of each parameter and each choice was in a configuration."""
    searched = build(space, size)
    offered, reached = defaultdict(set), defaultdict(set)
    for seed in range(1500):
        trial = Extreme(seed)
        fields = searched.suggest(trial)
        if any(value not in reached[name] for name, value in trial.params.items()):
            configure(size, fields)
        for name, value in trial.params.items():
            offered[name] |= set(trial.offered[name])
            reached[name].add(value)
    never = {name: ends - reached[name] for name, ends in offered.items() if ends - reached[name]}
    assert never == {}


@each_absence
@each_size
@each_space
def test_known_points_lie_in_the_space_and_differ(space, size, absent):
    searched = build(space, size, absent)
    assert searched.known_points
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = [choose_known(searched, point) for point in searched.known_points]
    fingerprints = {configure(size, fields).fingerprint("") for fields in chosen}
    assert len(fingerprints) == len(chosen)


@each_size
@each_space
def test_absent_terms_are_in_no_sample_and_are_told(space, size):
    absent = ABSENT["no foreign terms"]
    whole, without = build(space, size), build(space, size, absent)
    varied = set()
    for seed in range(100):
        assert absent.isdisjoint(_terms(size, without.suggest(Drawing(seed))))
        varied |= _terms(size, whole.suggest(Drawing(seed)))
    assert set(without.left_out) == varied & absent
    assert whole.left_out == ()


def _terms(size, fields):
    return set(configure(size, fields).loss.weights)


@each_space
def test_no_space_asks_for_a_discriminator(space):
    for seed in range(200):
        fields = SPACES[space].suggest(Drawing(seed))
        assert not any(fields.get(f"loss.{term}") for term in CRITIC_TERMS)


@each_space
def test_the_module_itself_is_the_space_at_the_logs_size(space):
    searched = build(space, "log")
    assert tuple(SPACES[space].KNOWN_POINTS) == tuple(searched.known_points)
    for seed in range(10):
        assert SPACES[space].suggest(Drawing(seed)) == searched.suggest(Drawing(seed))


@each_space
def test_optuna_itself_can_draw_from_it(space):
    """Its studies refuse a parameter whose choices change, or whose values are no plain ones."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    searched = build(space, "demo")
    for point in searched.known_points:
        study.enqueue_trial(dict(point))
    for value in range(30):
        trial = study.ask()
        searched.suggest(trial)
        study.tell(trial, value)
    assert len({repr(trial.params) for trial in study.trials}) > 10


def test_what_spaces_know_of_the_logs_size_is_the_trainers():
    defaults = TrainConfig.from_fields(SIZES["log"]).to_fields()
    assert {name: defaults[name] for name in LOG.fields} == dict(LOG.fields)
