"""What single spaces promise beside the contract of all."""

import dataclasses

import pytest
from optuna.trial import FixedTrial
from tests_support.drawn_trial import Drawing

from search_spaces import clip_batch, kernel_size, loss_mix, lr_momentum, optimizer
from search_spaces.log_entries import ENTRIES
from search_spaces.space import LOG, Shared
from trainer.config import TrainConfig
from trainer.sizes import SIZES

LOGS = {entry.number: entry.fields for entry in ENTRIES}


def shared(size, **fields):
    return Shared(size=size, fields=TrainConfig.from_fields(SIZES[size]).to_fields() | fields)


def draw(space, count=500):
    return [space.suggest(Drawing(seed)) for seed in range(count)]


@pytest.mark.parametrize("size", SIZES)
def test_clips_make_up_equal_audio_within_2_percent(size):
    audio = clip_batch.audio_per_step(shared(size))
    chosen = draw(clip_batch.space_for(shared(size)))
    for fields in chosen:
        assert fields["data.batch_size"] * fields["data.clip_samples"] == pytest.approx(
            audio, rel=0.02
        )
        assert fields["data.clip_samples"] % 512 == 0
        assert 8192 <= fields["data.clip_samples"] <= 88_200, "at most two seconds"
    assert {fields["data.batch_size"] for fields in chosen} >= {
        "log": {18, 32, 96},
        "demo": {2, 4, 16},
    }[size]


def test_the_logs_own_clips_and_batch_are_a_point():
    fields = clip_batch.suggest(FixedTrial({"clip_samples": LOGS[37]["data.clip_samples"]}))
    assert fields == {name: LOGS[37][name] for name in fields}


def test_taps_span_no_more_than_121_places():
    spans = [
        (fields["model.kernel_size"] - 1) * fields["model.dilation"] + 1
        for fields in draw(kernel_size)
    ]
    assert 111 <= max(spans) <= 121  # HiFi-GAN's 11 taps 11 apart are 111


@pytest.mark.parametrize("size", SIZES)
def test_weights_lie_on_the_simplex_and_hold_a_spectral_term(size):
    seen = set()
    for fields in draw(loss_mix.space_for(shared(size))):
        weights = TrainConfig.from_fields(fields).loss.weights
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
        assert min(weights.values()) > 0
        assert {"stft", "mel"} & set(weights)
        seen.add(frozenset(weights))
    assert len(seen) == 3 * 2**4, "every set of the six terms with a spectral one"


def test_output35s_mix_has_equal_weights_and_looks_into_the_same_features():
    fields = loss_mix.suggest(FixedTrial(dict(loss_mix.KNOWN_POINTS[-2])))
    assert (fields["loss.stft"], fields["loss.dac"]) == (0.5, 0.5)
    names = ("loss.mel", "loss.l1", "loss.cdpam", "loss.dac_blocks", "loss.dac_features")
    assert {name: fields[name] for name in names} == {name: LOGS[35].get(name) for name in names}


@pytest.mark.parametrize("absent", [frozenset(), frozenset({"dac", "cdpam"})])
def test_the_last_known_mix_balances_all_terms_that_are_here(absent):
    space = loss_mix.space_for(dataclasses.replace(LOG, absent_terms=absent))
    fields = space.suggest(FixedTrial(dict(space.known_points[-1])))
    loss = TrainConfig.from_fields(fields).loss
    here = {"stft", "mel", *loss_mix.OTHER_TERMS} - absent
    assert loss.weights == pytest.approx(dict.fromkeys(here, 1 / len(here)))
    assert loss.balance == "gradient"


def test_a_warm_up_takes_a_tenth_of_the_steps_at_most():
    for steps in (20, 200, 10_000):
        chosen = draw(optimizer.space_for(shared("log", steps=steps)))
        longest = max(fields["optimizer.warmup_steps"] for fields in chosen)
        assert 0.09 * steps <= longest <= 0.1 * steps


def test_the_logs_psgd_runs_and_best_muon_are_points_of_the_optimizer_space():
    space = optimizer.space_for(LOG)
    chosen = [space.suggest(FixedTrial(dict(point))) for point in space.known_points]
    names = ("optimizer.name", "optimizer.lr", "optimizer.adamw_lr", "optimizer.momentum")

    def of(fields):
        resolved = TrainConfig.from_fields(fields).to_fields()
        return tuple(resolved[name] for name in names)

    assert {of(LOGS[number]) for number in (27, *range(38, 44))} <= {
        of(fields) for fields in chosen
    }
    norms = {fields["optimizer.clip_norm"] for fields in chosen}
    assert {None, LOGS[31]["optimizer.clip_norm"]} <= norms
    assert not any("optimizer.preconditioner_probability" in fields for fields in chosen)


def test_the_logs_best_rates_are_tried_first():
    points = lr_momentum.KNOWN_POINTS
    assert {p["optimizer.momentum"] for p in points} == {TrainConfig().optimizer.momentum}
    rates = [(p["optimizer.lr"], p["optimizer.adamw_lr"]) for p in points]
    logs = [LOGS[number] for number in (27, 25, 28, 26)]
    assert rates == [(run["optimizer.lr"], run["optimizer.adamw_lr"]) for run in logs]
