import pytest
import torch
from tests_support.trained_folder import random_net, tiny_config

from trainer.real_spectrogram import RealSpectrogramNet

pytestmark = pytest.mark.usefixtures("one_thread")


def signals(samples):
    """Noise, a noisy chord and silence, in [-1, 1]."""
    noise = 2 * torch.rand(samples, generator=torch.Generator().manual_seed(1)) - 1
    time_s = torch.arange(samples) / 44_100
    chord = sum(torch.sin(2 * torch.pi * hz * time_s) for hz in (220.0, 331.0, 3000.0)) / 3
    return torch.stack((noise, 0.95 * chord + 0.05 * noise, torch.zeros(samples)))


@pytest.mark.parametrize("family", ["spectrogram", "frames"])
@pytest.mark.parametrize("output", ["direct", "difference"])
@pytest.mark.parametrize("samples", [513, 4096, 10_001])
def test_it_gives_what_the_complex_net_gives(family, output, samples):
    net = random_net(tiny_config(family, model__output=output).model)
    clips = signals(samples)
    with torch.inference_mode():
        expected, given = net(clips), RealSpectrogramNet(net)(clips)
    assert (expected - clips).abs().max() > 0.05  # the net does something
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)  # two ways of rounding
