import re

import numpy as np
import pytest
import torch

from trainer.alignment import cut_to_common, find_lag
from trainer.config import SAMPLE_RATE_HZ
from trainer.damage import damage_clips

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def music(seconds=2.0, seed=0):
    """Plucked notes of random pitch and loudness, four a second."""
    random = np.random.default_rng(seed)
    samples = int(seconds * SAMPLE_RATE_HZ)
    signal = random.normal(0, 1e-3, samples)
    for start in range(0, samples, SAMPLE_RATE_HZ // 4):
        time_s = np.arange(samples - start) / SAMPLE_RATE_HZ
        hz, loudness = random.uniform(150, 900), random.uniform(0.05, 0.2)
        note = sum(np.sin(2 * np.pi * hz * k * time_s) / k for k in (1, 2, 3, 5))
        signal[start:] += loudness * note * np.exp(-8 * time_s)
    return signal.astype(np.float32)


def delay(signal, samples, seed=9):
    """Return a signal later by so many samples of faint noise, or cut at its beginning."""
    before = np.random.default_rng(seed).normal(0, 1e-4, max(0, samples)).astype(np.float32)
    return np.concatenate([before, signal[max(0, -samples) :]])


@pytest.mark.parametrize(
    ("samples", "gain"), [(0, 1.0), (0, 0.1), (1, 0.1), (37, -1.0), (12_345, 1.0), (-20_000, 0.1)]
)
def test_a_delay_is_found_to_the_sample_whatever_the_gain(samples, gain):
    signal = music()
    assert find_lag(signal, gain * delay(signal, samples), device=CPU) == samples


def test_the_delay_of_a_sweep_that_has_no_envelope_is_found_to_the_sample():
    time_s = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    sweep = 0.1 * np.sin(2 * np.pi * (200 + 500 * time_s) * time_s).astype(np.float32)
    assert find_lag(sweep, sweep[4321:], device=CPU) == -4321


@pytest.mark.parametrize("samples", [0, 12_345, -20_000])
@pytest.mark.parametrize("semitones", [-4, 1, 3])
def test_the_delay_of_damaged_audio_is_found_within_ten_milliseconds(samples, semitones):
    signal = music()
    clips = torch.from_numpy(signal)[None]
    damaged = damage_clips(clips, torch.tensor([semitones]))[0].numpy()
    # Damage itself smears beginnings by a frame of its phase vocoder, 512 samples.
    assert abs(find_lag(signal, delay(damaged, samples), device=CPU) - samples) < 441


def test_a_piece_is_found_in_a_longer_recording():
    signal = music(5.0)
    piece = signal[2 * SAMPLE_RATE_HZ : 3 * SAMPLE_RATE_HZ]
    assert find_lag(signal, piece, device=CPU) == -2 * SAMPLE_RATE_HZ
    assert find_lag(piece, signal, device=CPU) == 2 * SAMPLE_RATE_HZ


def test_a_delay_is_found_where_sound_begins_late_in_a_recording():
    signal = np.concatenate([np.zeros(13 * SAMPLE_RATE_HZ, np.float32), music()])
    assert find_lag(signal, delay(signal, 555), device=CPU) == 555


def test_no_lag_is_taken_that_leaves_less_than_half_a_second():
    assert find_lag(music(0.5), music(0.5, seed=1), device=CPU) == 0


@pytest.mark.parametrize(("aim", "made"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_silence_is_left_where_it_is(aim, made):
    reference, estimate = aim * music(), made * music(1.5)
    assert find_lag(np.float32(reference), np.float32(estimate), device=CPU) == 0


@pytest.mark.parametrize(("field", "order"), [("reference", -1), ("estimate", 1)])
def test_less_than_half_a_second_is_refused(field, order):
    pair = (music(), music(0.4))[::order]
    expected = f"{field}=0.40 s; must be at least 0.5 s to be aligned"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        find_lag(*pair, device=CPU)


@pytest.mark.parametrize(
    ("lag", "aim", "made"),
    [(0, [0, 1, 2], [0, 1, 2]), (2, [0, 1], [2, 3]), (-1, [1, 2, 3], [0, 1, 2])],
)
def test_what_sounds_together_is_cut_out(lag, aim, made):
    reference, estimate = np.arange(4), np.arange(4 if lag else 3)
    cut = cut_to_common(reference, estimate, lag)
    assert [each.tolist() for each in cut] == [aim, made]
