import typing

import pytest
import torch

from trainer.config import TrainConfig
from trainer.model_config import Family
from trainer.models import build_model
from trainer.sizes import SIZES, default_size, fields_of_size

FAMILIES = typing.get_args(Family)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_a_valid_configuration_whose_validation_is_the_same_length(size):
    config = TrainConfig.from_fields(SIZES[size])
    assert config.validation.clip_samples == 49_152
    assert config.steps % config.report_every == 0


def test_the_log_s_size_is_the_defaults():
    assert TrainConfig.from_fields(SIZES["log"]) == TrainConfig()


def test_the_demo_s_net_is_the_small_one_that_starts_as_the_identity():
    config = TrainConfig.from_fields(SIZES["demo"])
    clips = torch.randn(1, 8192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        restored = build_model(config.model)(clips)
    # An STFT and its inverse: a few float32 roundings of samples up to 4.
    assert torch.allclose(restored, clips, rtol=0, atol=5e-6)
    assert config.steps <= 500  # "a few hundred"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_a_net_of_each_family_and_is_else_the_same(size, family):
    found = TrainConfig.from_fields(fields_of_size(size, {"model.family": family})).to_fields()
    usual = TrainConfig.from_fields(SIZES[size]).to_fields()
    shape = {f"model.{name}" for name in ("family", "channels", "blocks", "factors", "kernel_size")}
    assert found["model.family"] == family
    assert {name for name in found if found[name] != usual[name]} <= shape


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_its_own_net_where_no_other_family_is_chosen(size):
    usual = TrainConfig.from_fields(SIZES[size])
    for given in ({}, {"model.family": usual.model.family}):
        assert TrainConfig.from_fields(fields_of_size(size, given)) == usual


def test_what_is_given_wins_over_the_shape_of_a_size():
    given = {"model.family": "waveform", "model.blocks": [1, 1, 1, 1], "steps": 7}
    fields = fields_of_size("demo", given)
    assert {name: fields[name] for name in given} == given
    assert fields["model.channels"] == (1, 4, 8, 32, 64)


@pytest.mark.parametrize("family", ["mlp", ["waveform"], None])
def test_a_family_that_is_none_is_refused_as_everywhere(family):
    with pytest.raises(ValueError, match=r"^model\.family=.*; must be one of waveform, "):
        TrainConfig.from_fields(fields_of_size("demo", {"model.family": family}))


@pytest.mark.parametrize(("has_gpu", "size"), [(True, "log"), (False, "demo")])
def test_the_size_follows_from_the_machine_and_the_reason_is_given(has_gpu, size):
    chosen, reason = default_size(has_gpu=has_gpu)
    assert chosen == size
    assert ("no GPU" in reason) == (not has_gpu)
