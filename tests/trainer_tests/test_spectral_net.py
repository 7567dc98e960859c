"""What both spectral nets make of what they decide for each bin and frame."""

import math

import pytest
import torch
from tests_support.small_nets import build, noise

from trainer.spectral_net import N_FFT

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.parametrize("family", ["spectrogram", "frames"]),
]


def with_constant_head(family, *, log_gain, turn, output="difference"):
    """A net that decides the same whatever it hears."""
    model = build(family, output)
    head = model.edges()[1]
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        if family == "frames":  # all gains, then all turns
            head.bias.view(2, -1)[0], head.bias.view(2, -1)[1] = log_gain, turn
        else:  # in turn
            head.bias.view(-1, 2)[:, 0], head.bias.view(-1, 2)[:, 1] = log_gain, turn
    return model


def test_the_head_is_log_gain_and_turn_of_phase(family):
    clips = noise(2, 5000)
    with torch.no_grad():
        louder = with_constant_head(family, log_gain=0.5, turn=0.0)(clips)
        turned = with_constant_head(family, log_gain=0.0, turn=math.pi)(clips)
    gain = math.exp(6 * math.tanh(0.5 / 6))
    torch.testing.assert_close(louder, gain * clips, rtol=0, atol=5e-6)  # float32, 1.6 times 1.2
    torch.testing.assert_close(turned, -clips, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_magnitude_is_changed_by_at_most_52_db(family, sign):
    clips = noise(2, 5000)
    with torch.no_grad():
        restored = with_constant_head(family, log_gain=sign * 1e9, turn=0.0)(clips)
    ratio_db = 20 * math.log10(float(restored.norm() / clips.norm()))
    assert ratio_db == pytest.approx(sign * 20 * 6 * math.log10(math.e), abs=1e-3)  # float32


def test_with_output_direct_only_the_phase_is_taken_from_the_input(family):
    clips = noise(2, 5000)
    model = with_constant_head(family, log_gain=1.0, turn=0.0, output="direct")
    with torch.no_grad():
        one, louder = model(clips), model(10 * clips)
    # The same phases at the same, constant magnitude. Rounding of phases of faint bins.
    torch.testing.assert_close(one, louder, rtol=0, atol=1e-4)
    assert one.abs().max() > 0.01


def test_what_it_looks_at_is_log_magnitudes_of_about_unit_scale(family):
    model, heard = build(family), []
    judge = model.judge
    model.judge = lambda levels: heard.append(levels) or judge(levels)
    with torch.no_grad():
        model(noise(1, 4096))
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(noise(1, 4096), N_FFT, 256, window=window, return_complex=True)
    expected = (spectrum.abs().log() + 3) / 3
    torch.testing.assert_close(heard[0], expected.transpose(1, 2), rtol=0, atol=1e-4)  # faint bins
    assert heard[0].abs().median() < 3
