from fractions import Fraction

import numpy as np
import pytest
import torch

from trainer.config import SAMPLE_RATE_HZ
from trainer.damage import _stretch
from trainer.pitch import shift_pitch, stretch

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(signal, sizes):
    first = 0
    for size in sizes:
        yield signal[first : first + size]
        first += size


def music(frames):
    time_s = np.arange(frames) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.1, (frames, 2))
    chord = np.stack([np.cos(2 * np.pi * hz * time_s) for hz in (440.0, 3000.0)], axis=1)
    return (0.3 * chord + noise).astype(np.float32)


# Fractions under which no frame falls on one of the original: there, which of two neighbours it is
# taken for depends on the last bit.
@pytest.mark.parametrize("ratio", [Fraction(1187, 1000), Fraction(841, 1000), Fraction(1999, 1000)])
@pytest.mark.parametrize("sizes", [[30_000], [1000] * 30, [1, 7, 255, 300, 11_000, 18_437]])
def test_a_stream_is_stretched_as_training_stretches_clips(ratio, sizes):
    signal = music(30_000)
    made = np.concatenate(list(stretch(blocks(signal, sizes), float(ratio))))
    expected = _stretch(torch.from_numpy(signal.T.copy()).double(), ratio).numpy().T
    # The reference is all float64. Here frames are float32, and the phase of a faint bin is vague.
    np.testing.assert_allclose(made[: len(expected)], expected, atol=3e-4)
    assert len(made) >= len(expected)


@pytest.mark.parametrize("frames", [1, 100, 511])
def test_a_stream_shorter_than_a_window_is_no_error(frames):
    made = np.concatenate(list(stretch(iter([music(frames)]), 1.25)))
    assert np.isfinite(made).all()


@pytest.mark.parametrize("semitones", [-7, -3, 1, 4.5, 12])
def test_a_tone_moves_by_exactly_so_many_semitones(semitones):
    hz, ratio = 1000.0, 2 ** (semitones / 12)
    time_s = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = 0.3 * np.cos(2 * np.pi * hz * time_s).astype(np.float32)[:, None]
    made = np.concatenate(list(shift_pitch(blocks(tone, [9000] * 10), ratio)))[:, 0]
    assert abs(len(made) - len(tone)) < 1024
    part = made[20_000:70_000] * np.hanning(50_000)
    strongest_hz = np.abs(np.fft.rfft(part, 1 << 20)).argmax() * SAMPLE_RATE_HZ / (1 << 20)
    assert strongest_hz == pytest.approx(hz * ratio, rel=1e-3)  # 2 cents
