import pytest
import torch
from torch import nn

from trainer.losses.codec_features import Stage, StagedEncoder, relative_l1


def layer(*values):
    """Return features [clip, channel, frame] of one channel and one frame."""
    return torch.tensor(values)[:, None, None]


def test_the_distance_is_relative_to_the_target_and_meaned_over_layers():
    made = [layer(1.0, 3.0), layer(0.0, 0.5)]
    aim = [layer(2.0, 1.0), layer(-4.0, 0.25)]
    assert relative_l1(made, aim).tolist() == [(1 / 2 + 4 / 4) / 2, (2 / 1 + 0.25 / 0.25) / 2]


def test_what_a_silent_layer_is_relative_to_has_a_floor():
    assert relative_l1([layer(0.5)], [layer(0.0)]).item() == pytest.approx(0.5 / 1e-5)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Refuses(nn.Module):
    def forward(self, x):
        raise AssertionError


def test_features_are_those_after_each_unit_and_no_more_is_computed():
    stages = [Stage([Times(2), Times(3)], Times(5)), Stage([Times(7)], Refuses())]
    encoder = StagedEncoder(Times(10), stages, features="units")
    assert [x.item() for x in encoder(torch.ones(1))] == [20, 60, 2100]


def test_features_are_those_after_each_block():
    stages = [Stage([Times(2), Times(3)], Times(5)), Stage([Times(7)], Times(11))]
    encoder = StagedEncoder(Times(10), stages, features="blocks")
    assert [x.item() for x in encoder(torch.ones(1))] == [300, 23100]
