import pytest
import torch

from trainer.config import TrainConfig
from trainer.models import build_model
from trainer.sizes import SIZES, default_size


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


@pytest.mark.parametrize(("has_gpu", "size"), [(True, "log"), (False, "demo")])
def test_the_size_follows_from_the_machine_and_the_reason_is_given(has_gpu, size):
    chosen, reason = default_size(has_gpu=has_gpu)
    assert chosen == size
    assert ("no GPU" in reason) == (not has_gpu)
