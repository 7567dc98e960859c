import itertools
import typing

import pytest

from trainer.config import SAMPLE_RATE_HZ
from trainer.cost import (
    checkpoint_bytes,
    cost_of_loss,
    multiply_adds_per_second,
    parameters_by_part,
    receptive_field_ms,
)
from trainer.losses.spectral import MEL_SCALES
from trainer.model_config import ModelConfig
from trainer.models import build_model, count_parameters
from trainer.optimizer_config import OptimizerConfig
from trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = typing.get_args(typing.get_type_hints(ModelConfig)["family"])
OPTIMIZERS = typing.get_args(typing.get_type_hints(OptimizerConfig)["name"])
KINDS = list(itertools.product(FAMILIES, OPTIMIZERS))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_just_one_part(tiny_config, family):
    net = build_model(tiny_config(model__family=family).model)
    assert sum(parameters_by_part(net).values()) == count_parameters(net)


def test_the_parts_are_what_a_net_is_drawn_as(tiny_config):
    waveform = build_model(tiny_config(model__family="waveform").model)
    halves = ("down", "encode", "join", "decode", "up")
    assert list(parameters_by_part(waveform)) == [f"stages.{i}.{h}" for i in (0, 1) for h in halves]
    spectrogram = build_model(tiny_config(model__family="spectrogram").model)
    assert list(parameters_by_part(spectrogram)) == list(parameters_by_part(waveform))
    frames = build_model(tiny_config(model__family="frames").model)
    assert list(parameters_by_part(frames)) == ["body.0", "body.1", "body.2", "head"]


def test_the_receptive_field_is_a_sample_with_its_reach_to_both_sides(tiny_config):
    net = build_model(tiny_config(model__family="waveform").model)
    assert receptive_field_ms(net) == pytest.approx((2 * 31 + 1) / 44.1)


def block(width, taps):
    """Multiply-adds at one place: depthwise taps, and a pointwise MLP of four times the width."""
    return width * taps + 2 * 4 * width * width


def test_multiply_adds_of_the_waveform_net_are_those_counted_by_hand(tiny_config):
    config = tiny_config(
        model__family="waveform",
        model__channels=[1, 4, 8],
        model__blocks=[1, 2],
        model__factors=[4, 2],
        model__kernel_size=5,
    )
    # Per row of a stage: down and up as matrices, a join of two widths, blocks on both ways.
    first = 4 * 4 + 4 * 4 + 8 * 4 + 2 * 1 * block(4, 5)
    second = 8 * 8 + 8 * 8 + 16 * 8 + 2 * 2 * block(8, 5)
    expected = first * SAMPLE_RATE_HZ / 4 + second * SAMPLE_RATE_HZ / 8
    assert multiply_adds_per_second(config) == round(expected)


def test_multiply_adds_of_the_spectrogram_net_are_those_counted_by_hand(tiny_config):
    config = tiny_config(model__family="spectrogram", data__clip_samples=8192)
    # As above, for each place of an image of 33 frames, filled up to 40, and 512 bins. Patches of
    # 16 and 4 places; two channels come out.
    first = 16 * 4 + 4 * 2 * 16 + 8 * 4 + 2 * 1 * block(4, 9)
    second = 4 * 4 * 8 + 8 * 4 * 4 + 16 * 8 + 2 * 1 * block(8, 9)
    expected = first * 10 * 128 + second * 5 * 64
    assert multiply_adds_per_second(config) == round(expected / (8192 / SAMPLE_RATE_HZ))


def test_multiply_adds_of_the_frames_net_are_those_counted_by_hand(tiny_config):
    config = tiny_config(model__channels=[16], model__kernel_size=5, data__clip_samples=4096)
    frame = 513 * 16 + block(16, 5) + 16 * 2 * 513
    frames = 4096 // 256 + 1  # centred: one more than hops
    expected = frame * frames / (4096 / SAMPLE_RATE_HZ)
    assert multiply_adds_per_second(config) == round(expected)


def test_the_batch_does_not_change_what_a_second_costs(tiny_config):
    one, many = (multiply_adds_per_second(tiny_config(data__batch_size=n)) for n in (1, 64))
    assert one == many


@pytest.mark.parametrize(("family", "optimizer"), KINDS)
def test_files_are_as_large_as_expected(tiny_config, tmp_path, family, optimizer):
    # In a first step only the last layer of an identity has a gradient: PSGD leaves others be.
    config = tiny_config(model__family=family, optimizer__name=optimizer, steps=3, report_every=1)
    train(config, report=lambda row: None, folder=tmp_path)
    names = ("last.pt", "previous.pt", "best.safetensors")
    written = sum((tmp_path / name).stat().st_size for name in names)
    # One or two rows of the journal, and names of one length or another.
    assert checkpoint_bytes(config) == pytest.approx(written, rel=0.05)


def test_the_multiply_adds_of_a_loss_are_those_of_its_products(tiny_config):
    """By hand: of the mel distance, at each scale filters times frames, of estimate and target, and
    of the estimate once more on the way back. Its Fourier transforms are not counted."""
    config = tiny_config(loss__stft=0.0, loss__mel=1.0)
    cost = cost_of_loss(config)
    assert list(cost) == ["stft", "mel"]
    samples = config.data.clip_samples
    products = sum(
        (window // 2 + 1) * bands * (samples // (window // 4) + 1) for window, bands in MEL_SCALES
    )
    assert cost["mel"].multiply_adds_per_second == round(3 * products / samples * SAMPLE_RATE_HZ)
    assert (cost["stft"].multiply_adds_per_second, cost["mel"].parameters) == (0, 0)


def test_a_discriminator_is_told_apart_from_what_it_is_asked(tiny_config):
    cost = cost_of_loss(tiny_config(loss__adversarial=1.0, loss__feature_matching=2.0))
    assert list(cost) == ["discriminator", "stft", "adversarial, feature_matching"]
    learning, asking = cost["discriminator"], cost["adversarial, feature_matching"]
    assert 42e6 < learning.parameters < 43e6  # DAC's published one
    assert asking.parameters == 0
    # It learns from both with gradients of all weights, and is asked for that of the estimate.
    assert asking.multiply_adds_per_second < learning.multiply_adds_per_second
