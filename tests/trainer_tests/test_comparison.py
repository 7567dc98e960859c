import json
import math
import re

import numpy as np
import pytest
import soundfile
import torch

from trainer.comparison import (
    METRICS,
    compare,
    compare_recordings,
    mean_metrics,
    pair_recordings,
)
from trainer.config import SAMPLE_RATE_HZ

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RATES = "must have the reference's 44100 Hz, not 48000 Hz, unless they are aligned (--align)"
LENGTHS = "must have the reference's 30000 samples, not 30001, unless they are aligned (--align)"


def noise(samples=30_000, level=0.1, seed=0):
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


def tones(rate_hz, samples, start_s=0.0):
    """Return notes of 1/8 s below 2 kHz, the same at every rate, from a moment on."""
    time_s = np.arange(samples) / rate_hz + start_s
    hz = np.random.default_rng(0).uniform(200, 2000, 100)[(8 * time_s).astype(int)]
    return 0.2 * np.sin(2 * np.pi * hz * time_s) * np.exp(-20 * (time_s % 0.125))


def between(reference, estimate, **options):
    return compare_recordings(reference, estimate, **{"align": False, "device": CPU, **options})


@pytest.fixture
def write(tmp_path):
    """Return a function that writes samples and returns the path."""

    def write(name, samples, rate_hz=SAMPLE_RATE_HZ, subtype="PCM_24"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, rate_hz, subtype)
        return path

    return write


# Two signals.


def test_the_metrics_are_those_of_the_contract():
    found = compare(noise(), noise(seed=1), device=CPU)
    assert tuple(found) == METRICS == ("stft", "mel", "lsd_db", "si_sdr_db", "l1", "cdpam")


def test_a_gain_has_its_closed_forms():
    reference = noise()
    found = compare(reference, 2 * reference, device=CPU)
    # Convergence and log distance; the other way round it were 0.5 + ln 2.
    assert found["stft"] == pytest.approx(1 + math.log(2), rel=1e-4)
    assert found["lsd_db"] == pytest.approx(20 * math.log10(2), rel=1e-5)
    assert found["mel"] == pytest.approx(7 * math.log10(2), rel=1e-2)  # narrow bands that are empty
    assert found["l1"] == pytest.approx(float(np.abs(reference).mean()), rel=1e-5)
    assert found["si_sdr_db"] > 60


def test_orthogonal_noise_has_its_ratio_in_si_sdr():
    phase = 2 * np.pi * 100 * np.arange(44_100) / 44_100  # whole periods
    reference, added = np.float32(np.sin(phase)), np.float32(0.1 * np.cos(phase))
    found = compare(reference, reference + added, device=CPU)
    assert found["si_sdr_db"] == pytest.approx(20.0, abs=1e-3)  # sums of float32 squares


def test_every_frequency_counts():
    reference = noise()
    hiss = 0.1 * np.sin(2 * np.pi * 20_000 * np.arange(30_000) / SAMPLE_RATE_HZ)
    assert compare(reference, reference + np.float32(hiss), device=CPU)["lsd_db"] > 0.5


@pytest.mark.parametrize(("aim", "made"), [(0.0, 0.0), (0.0, 0.1), (0.1, 0.0)])
def test_silence_has_every_metric_but_si_sdr(aim, made):
    found = compare(noise(level=aim), noise(level=made, seed=1), device=CPU)
    assert found["si_sdr_db"] is None
    assert all(math.isfinite(found[name]) for name in ("stft", "mel", "lsd_db", "l1"))
    assert (found["stft"] == 0.0) is (aim == made)


def test_a_value_that_is_not_finite_is_none():
    estimate = noise()
    estimate[10_000] = np.nan
    found = compare(noise(), estimate, device=CPU)
    assert found["l1"] is None
    assert "NaN" not in json.dumps(found, allow_nan=False)


def test_signals_shorter_than_half_an_fft_are_refused():
    with pytest.raises(ValueError, match=r"^samples=1024; must be at least 1025 at 44.1 kHz$"):
        compare(noise(1024), noise(1024), device=CPU)
    assert compare(noise(1025), noise(1025, seed=1), device=CPU)["stft"] > 0


# Two recordings.


def test_the_channels_of_a_recording_are_averaged(write):
    left, right = noise(), noise(seed=1)
    mono, stereo = write("a.wav", (left + right) / 2), write("b.wav", np.stack([left, right], 1))
    found = between(mono, stereo)
    assert found.metrics["l1"] < 1e-7  # 24 bits
    assert found.lag_samples is None


def test_recordings_of_another_rate_are_compared_at_44_1_khz(write):
    pair = (
        write("a.wav", 0.5 * tones(96_000, 96_000), 96_000),
        write("b.wav", tones(96_000, 96_000), 96_000),
    )
    at_44 = [np.float32(gain * tones(44_100, 44_100)) for gain in (0.5, 1.0)]
    expected = compare(*at_44, device=CPU)
    found = between(*pair).metrics
    assert found["l1"] == pytest.approx(expected["l1"], rel=1e-3)  # the ends of what was resampled
    assert found["stft"] == pytest.approx(expected["stft"], rel=1e-2)  # and the noise above 2 kHz


def test_a_silent_recording_and_a_short_one_can_be_compared(write):
    silent, short = write("a.wav", np.zeros(2000)), write("b.wav", noise(2000))
    assert between(short, silent).metrics["l1"] == pytest.approx(0.08, rel=0.1)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "expected"), [(30_000, 48_000, RATES), (30_001, 44_100, LENGTHS)]
)
def test_recordings_that_differ_in_rate_or_length_are_refused(write, samples, rate_hz, expected):
    reference, estimate = write("a.wav", noise()), write("b.wav", noise(samples), rate_hz)
    with pytest.raises(ValueError, match=f"^estimate={re.escape(f'{estimate}; {expected}')}$"):
        between(reference, estimate)


def test_recordings_that_differ_in_rate_and_beginning_are_aligned(write):
    reference = write("a.wav", tones(44_100, 80_000))
    estimate = write("b.flac", 0.5 * tones(48_000, 60_000, start_s=0.25), 48_000)
    found = between(reference, estimate, align=True)
    assert found.lag_samples == -11_025
    assert found.metrics["si_sdr_db"] > 30  # the notes' beginnings are not band-limited
    assert found.to_json()["lag_samples"] == -11_025


def test_what_is_not_a_recording_is_refused_by_name(write, tmp_path):
    reference, estimate = write("a.wav", noise()), tmp_path / "b.wav"
    estimate.write_text("no audio")
    expected = f"^estimate={re.escape(str(estimate))}; must be a recording that can be read: "
    with pytest.raises(ValueError, match=expected):
        between(reference, estimate)


@pytest.mark.parametrize("samples", [0, 1000])
def test_a_recording_that_is_too_short_is_refused_by_name(write, samples):
    path = write("a.wav", noise(samples))
    expected = f"must have at least 1025 samples, not {samples} samples at 44.1 kHz"
    with pytest.raises(ValueError, match=f"^reference={re.escape(f'{path}; {expected}')}$"):
        between(path, path)


# Two folders.


def test_folders_are_matched_by_path_without_ending(write, tmp_path):
    for name in ("aim/low/kick.wav", "aim/lone.wav", "made/low/kick.flac", "made/kick.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(name, noise(100))
    aim, made = tmp_path / "aim", tmp_path / "made"
    pairs = pair_recordings(aim, made)
    assert pairs.matched == {"low/kick": (aim / "low/kick.wav", made / "low/kick.flac")}
    assert pairs.unmatched == [made / "kick.wav", aim / "lone.wav"]


def test_folders_without_a_match_are_refused(write, tmp_path):
    write("aim/a.wav", noise(100)), write("made/b.wav", noise(100))
    with pytest.raises(
        ValueError, match=r"made; must hold recordings named like those of .*: none"
    ):
        pair_recordings(tmp_path / "aim", tmp_path / "made")


def test_two_recordings_of_one_name_in_a_folder_are_refused(write, tmp_path):
    write("aim/a.wav", noise(100)), write("aim/a.flac", noise(100))
    with pytest.raises(ValueError, match=r"must not hold two recordings a: a.flac and a.wav$"):
        pair_recordings(tmp_path / "aim", tmp_path / "aim")


def test_a_mean_is_over_those_that_have_the_metric():
    one, other = dict.fromkeys(METRICS, 1.0), dict.fromkeys(METRICS, 3.0)
    means = mean_metrics([{**one, "si_sdr_db": None, "cdpam": None}, {**other, "cdpam": None}])
    assert means == {**dict.fromkeys(METRICS, 2.0), "si_sdr_db": 3.0, "cdpam": None}
