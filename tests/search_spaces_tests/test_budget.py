"""The closed forms against the nets themselves, at random shapes of every family."""

import math
import random
import typing

import pytest
import torch

from search_spaces import budget
from trainer.config import TrainConfig
from trainer.cost import receptive_field_ms
from trainer.model_config import SPECTROGRAM_BINS, Family
from trainer.models import build_model, count_parameters

FAMILIES = typing.get_args(Family)
SHAPES = 50


def random_fields(family, chance):
    """Return resolved fields of a random net."""
    stages = chance.randint(1, 4)
    channels = [chance.randint(1, 40) for _ in range(stages)]
    factors = [chance.choice((1, 2, 3, 4, 8)) for _ in range(stages)]
    if family == "spectrogram":
        schedules = budget.factor_schedules(stages, divides=SPECTROGRAM_BINS, factors=(1, 2, 4, 8))
        factors = list(chance.choice(schedules))
    multiple = math.prod(factors) if family == "waveform" else 1
    clip_samples = math.ceil(4096 / multiple) * multiple
    fields = {
        "data.clip_samples": clip_samples,
        "validation.clip_samples": clip_samples,
        "model.family": family,
        "model.channels": channels if family == "frames" else [1, *channels],
        "model.blocks": [chance.randint(1, 2) for _ in range(stages)],
        "model.factors": [] if family == "frames" else factors,
        "model.kernel_size": chance.choice((1, 3, 7, 11, 41)),
        "model.dilation": chance.choice((1, 2, 11)),
        "model.activation": chance.choice(("gelu", "snake")),
        "model.output": chance.choice(("direct", "difference")),
    }
    return TrainConfig.from_fields(fields).to_fields()


def nets(family):
    """Yield fields, and the net that they make, which has no values."""
    chance = random.Random(family)
    for _ in range(SHAPES):
        fields = random_fields(family, chance)
        with torch.device("meta"):
            yield fields, build_model(TrainConfig.from_fields(fields).model)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_closed_form_is_equal_to_the_net_s_own(family):
    for fields, net in nets(family):
        assert budget.parameters(fields) == count_parameters(net), fields
        assert budget.length_multiple(fields) == net.length_multiple, fields
        assert budget.receptive_field_ms(fields) == receptive_field_ms(net), fields


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forms_hold_for_a_family_s_own_shape(family):
    fields = TrainConfig.from_fields({"model.family": family}).to_fields()
    with torch.device("meta"):
        net = build_model(TrainConfig.from_fields(fields).model)
    assert budget.parameters(fields) == count_parameters(net)
    assert budget.receptive_field_ms(fields) == receptive_field_ms(net)


def test_factor_schedules_are_all_and_only_those_that_divide():
    expected = [(2, 2), (2, 4), (4, 2), (3, 2), (2, 3), (3, 4), (4, 3)]
    found = budget.factor_schedules(2, divides=24, factors=(2, 3, 4))
    assert sorted(found) == sorted(expected)  # 9 and 16 do not divide 24
    assert budget.factor_schedules(3, divides=4, factors=(2, 4)) == []


def with_width(width):
    fields = TrainConfig.from_fields({"model.family": "frames"}).to_fields()
    return fields | {"model.channels": [width], "model.blocks": [3]}


@pytest.mark.parametrize("most", [100_000, 1_000_000, 10**12])
def test_the_widest_net_within_a_budget_fits_and_the_next_does_not(most):
    widths = range(8, 512, 8)
    chosen = budget.widest(with_width, widths=widths, most=most)
    assert budget.parameters(with_width(chosen)) <= most
    assert chosen == widths[-1] or budget.parameters(with_width(chosen + 8)) > most


def test_a_budget_that_nothing_fits_is_refused():
    least = budget.parameters(with_width(8))
    with pytest.raises(ValueError, match=f"most=10; must be >= {least}, the parameters of width 8"):
        budget.widest(with_width, widths=[8, 16], most=10)
