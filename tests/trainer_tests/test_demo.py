"""The demo's recordings: what they sound like, and as a data set. Synthesized only twice."""

import shutil
import time

import numpy as np
import pytest
import torch
from tests_support.noise_files import names, spoil_unnoticed

from trainer.config import METRIC, SAMPLE_RATE_HZ, TrainConfig
from trainer.data import open_data
from trainer.demo import DEMO_NAMES, DEMO_REVISION, demo_recordings
from trainer.evaluate import ValidationSet, score_do_nothing
from trainer.sizes import SIZES
from trainer.train import train


@pytest.fixture(scope="module")
def recordings():
    return dict(demo_recordings())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that holds the demo."""
    cache = tmp_path_factory.mktemp("demo")
    open_data("demo", cache)
    return cache


def share_above(signal, hz):
    power = np.abs(np.fft.rfft(signal)) ** 2
    return power[np.fft.rfftfreq(len(signal), 1 / SAMPLE_RATE_HZ) > hz].sum() / power.sum()


def test_names_are_those_of_the_recordings(recordings):
    assert tuple(recordings) == DEMO_NAMES
    assert len(DEMO_NAMES) == 28


def test_as_a_data_set_it_has_the_same_bits_synthesized_once_more(recordings, cache):
    data = open_data("demo", cache)
    for each in data.training + data.validation:
        assert np.array_equal(data.clip(each, 0, each.samples), recordings[each.name]), each.name


def test_a_data_set_is_synthesized_once(cache, tmp_path):
    silenced = shutil.copytree(cache, tmp_path / "demo")
    samples_path = silenced / open_data("demo", silenced).fingerprint / "samples.f32"
    spoil_unnoticed(samples_path)  # who synthesizes it again is heard
    before_s = time.process_time()
    assert not open_data("demo", silenced).samples.any()
    assert time.process_time() - before_s < 1.0  # synthesizing takes about 5 s


def test_a_guitar_a_speaker_a_choir_and_drums_are_held_out(cache):
    data = open_data("demo", cache)
    held_out = {"guitar_chords", "middle_speech", "choir", "rock_drums", "toms"}
    assert names(data.validation) == held_out
    assert names(data.training) == set(DEMO_NAMES) - held_out


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_training_on_it_beats_doing_nothing_within_15_steps(cache):
    fields = SIZES["demo"] | {"steps": 15, "report_every": 15, "device": "cpu"}
    config = TrainConfig.from_fields({**fields, "data.cache": str(cache)})
    data = open_data("demo", cache)
    validation = ValidationSet.build(data, config.validation, torch.device("cpu"))
    result = train(config, report=lambda row: None)
    assert result.value < 0.98 * score_do_nothing(validation)[METRIC]


def test_recordings_are_four_to_six_seconds_with_peaks_of_half_to_full(recordings):
    for name, samples in recordings.items():
        assert samples.dtype == np.float32, name
        assert 4.0 <= len(samples) / SAMPLE_RATE_HZ <= 6.0, name
        assert 0.49 <= np.abs(samples).max() <= 0.91, name  # noise of -60 dBFS on top


def test_no_two_recordings_are_alike(recordings):
    beginnings = np.stack([samples[: 4 * SAMPLE_RATE_HZ] for samples in recordings.values()])
    alike = np.abs(np.corrcoef(beginnings)) - np.eye(len(beginnings))
    assert alike.max() < 0.5


def test_most_reach_up_to_where_low_passing_matters(recordings):
    # Five semitones up leave 16.5 kHz; at least -50 dB must lie above it, or nothing is lost.
    reaching = [name for name, samples in recordings.items() if share_above(samples, 16_500) > 1e-5]
    assert len(reaching) >= 20


def test_no_recording_is_silent_for_a_second(recordings):
    for name, samples in recordings.items():
        seconds = samples[: len(samples) // SAMPLE_RATE_HZ * SAMPLE_RATE_HZ]
        loudness = np.sqrt((seconds.reshape(-1, SAMPLE_RATE_HZ) ** 2).mean(axis=1))
        assert loudness.min() > 0.005, name


def test_a_change_of_the_sound_raises_the_revision(recordings):
    """Whoever changes these numbers raises DEMO_REVISION, or old caches are believed."""
    levels = {name: float(np.sqrt(np.mean(recordings[name] ** 2))) for name in LEVELS}
    assert DEMO_REVISION == 1
    assert levels == pytest.approx(LEVELS, rel=1e-3)  # processors differ in last bits only


LEVELS = {
    "guitar_chords": 0.078431,
    "guitar_melody": 0.060475,
    "harp_chords": 0.107396,
    "harp_melody": 0.062563,
    "bass_line": 0.092401,
    "piano_chords": 0.159277,
    "piano_melody": 0.171981,
    "marimba_melody": 0.111427,
    "bell_melody": 0.118002,
    "violin_melody": 0.171546,
    "cello_melody": 0.282471,
    "string_chords": 0.129822,
    "flute_melody": 0.186547,
    "organ_chords": 0.115502,
    "brass_melody": 0.152149,
    "low_speech": 0.138347,
    "middle_speech": 0.105346,
    "high_speech": 0.092232,
    "child_speech": 0.144379,
    "tenor_song": 0.172926,
    "soprano_song": 0.170144,
    "choir": 0.185876,
    "rock_drums": 0.066039,
    "fast_drums": 0.069744,
    "toms": 0.154417,
    "band": 0.084612,
    "song_with_guitar": 0.231936,
    "dance": 0.103205,
}
