"""Nets that keep to limits: the closed forms are the nets' own, and no limit is left unused."""

import math

import pytest
from optuna.trial import FixedTrial
from tests_support.drawn_trial import Drawing

from search_spaces import depth_channels, everything
from search_spaces.budget import parameters
from search_spaces.shapes import LIMITS, activations, fullness, multiply_adds
from search_spaces.space import Shared
from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.cost import multiply_adds_per_second
from trainer.sizes import SIZES, fields_of_size

SHAPES = [
    {
        "model.family": "waveform",
        "model.channels": [1, 12, 20],
        "model.blocks": [1, 2],
        "model.factors": [4, 8],
        "model.kernel_size": 7,
        "model.dilation": 3,
    },
    {
        "model.family": "spectrogram",
        "model.channels": [1, 16, 40],
        "model.blocks": [1, 3],
        "model.factors": [8, 2],
        "model.kernel_size": 5,
    },
    {"model.family": "frames"},
    {
        "model.family": "frames",
        "model.channels": [24, 40],
        "model.blocks": [2, 1],
        "model.kernel_size": 9,
    },
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s['model.family']}-{len(s)}")
def test_multiply_adds_are_those_counted_in_the_net(shape):
    """A clip has a frame more than hops, and is filled up to whole patches of frames."""
    config = TrainConfig.from_fields({**shape, "data.clip_samples": 49_152})
    frames, patch, hops = 193, math.prod(config.model.factors), 192
    filled = math.ceil(frames / patch) * patch / hops if config.model.family != "waveform" else 1
    counted = multiply_adds_per_second(config) / SAMPLE_RATE_HZ
    expected = filled * multiply_adds(config.to_fields())
    assert counted == pytest.approx(expected, rel=1e-4)  # it is rounded to a whole number


def test_activations_are_the_widths_of_blocks_over_their_strides():
    """output27: each of 16 blocks on the way down holds as many values as there are samples."""
    assert activations(TrainConfig().to_fields()) == 16
    spectrogram = TrainConfig.from_fields(SHAPES[1]).to_fields()
    assert activations(spectrogram) == 2 * (16 * 1 / 8**2 + 40 * 3 / 16**2)
    frames = TrainConfig.from_fields(SHAPES[3]).to_fields()
    assert activations(frames) == (24 * 2 + 40 * 1) / 2 / 256


def choose_nets(module, size, count):
    fields = TrainConfig.from_fields(SIZES[size]).to_fields()
    space = module.space_for(Shared(size=size, fields=fields))
    for seed in range(count):
        trial = Drawing(seed)
        chosen = space.suggest(trial)
        share = trial.params[f"{chosen['model.family']}.parameter_share"]
        yield chosen, share * LIMITS[size].parameters


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("module", [depth_channels, everything], ids=lambda m: m.__name__)
def test_a_net_keeps_to_its_budget_and_its_widths_do_not_fall(module, size):
    limits, used = LIMITS[size], []
    for net, budget in choose_nets(module, size, 500):
        most = round(budget)
        assert parameters(net) <= most
        assert multiply_adds(net) <= limits.multiply_adds
        assert activations(net) <= limits.activations
        assert list(net["model.channels"]) == sorted(net["model.channels"])
        used.append(fullness(net, limits=limits, most_parameters=most))
    used.sort()
    assert used[len(used) // 2] > 0.9, "half the nets use nine tenths of a limit"


@pytest.mark.parametrize("size", SIZES)
def test_down_sampling_divides_every_clip_length_of_the_log(size):
    for net, _ in choose_nets(depth_channels, size, 200):
        multiple = TrainConfig.from_fields(net).model.length_multiple
        assert all(n % multiple == 0 for n in (65_024, 48_640, 49_152, 32_256, 16_384))


def test_the_logs_nets_are_known_points_to_the_last_channel():
    nets = [depth_channels.suggest(FixedTrial(dict(p))) for p in depth_channels.KNOWN_POINTS]
    shapes = [(n["model.channels"], n["model.blocks"], n["model.factors"]) for n in nets]
    assert shapes == [
        ([1, 8, 64, 256, 512], [4, 4, 4, 4], [8, 8, 4, 2]),
        ([1, 8, 32, 128, 256, 512], [4, 4, 4, 4, 4], [8, 4, 4, 2, 2]),
        ([1, 8, 64, 128, 256], [4, 4, 4, 4], [8, 8, 2, 2]),
        ([1, 8, 64, 256, 512], [2, 2, 3, 4], [8, 8, 4, 2]),
    ]


@pytest.mark.parametrize("family", ["waveform", "spectrogram", "frames"])
@pytest.mark.parametrize("size", SIZES)
def test_the_net_that_a_size_has_of_a_family_keeps_to_the_limits(size, family):
    fields = TrainConfig.from_fields(fields_of_size(size, {"model.family": family})).to_fields()
    limits = LIMITS[size]
    assert fullness(fields, limits=limits, most_parameters=limits.parameters) <= 1.0
