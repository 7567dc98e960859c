import math
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
import torchaudio.functional as AF

from trainer.config import MAX_SHIFT_SEMITONES, SAMPLE_RATE_HZ
from trainer.damage import cutoff, damage_clips, low_pass_targets, pitch_shift, shift_ratio

pytestmark = pytest.mark.usefixtures("one_thread")

UP = range(1, MAX_SHIFT_SEMITONES + 1)
EVERY_SHIFT = [*(-n for n in UP), *UP]


def noise(clips, samples, level=0.1):
    return level * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))


def tone(hz, seconds=1.0):
    """A clip [1, sample] of a cosine: what reflection continues at the start without a kink.

    A phase vocoder keeps the phases of its first frame for ever. Where reflection bends them, a
    lone sine comes back 5 to 20 dB quieter, from torchaudio's own pitch_shift as well.
    """
    time_s = torch.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return 0.3 * torch.cos(2 * math.pi * hz * time_s)[None]


def middle(clips):
    return clips[0, 10_000:34_000]


def strongest_hz(signal):
    size = 1 << 18  # a resolution of 0.17 Hz
    window = torch.hann_window(len(signal), dtype=torch.float64)
    peak = torch.fft.rfft(signal.double() * window, n=size).abs().argmax()
    return float(peak) * SAMPLE_RATE_HZ / size


def level_db(signal):
    return 10 * math.log10(float(signal.double().square().mean()))


def spectrum(clip):
    return torch.fft.rfft(clip.double() * torch.hann_window(len(clip), dtype=torch.float64))


def gain_db(one, other):
    return 20 * math.log10(float(one.norm() / other.norm()))


@pytest.mark.parametrize("semitones", UP)
def test_every_ratio_is_within_16_cents_of_its_semitones(semitones):
    cents = 1200 * math.log2(shift_ratio(semitones))
    assert abs(cents - 100 * semitones) <= 16
    assert shift_ratio(-semitones) == 1 / shift_ratio(semitones)


def test_no_shift_is_the_ratio_one():
    assert shift_ratio(0) == Fraction(1)
    assert cutoff(0) == 1.0


@pytest.mark.parametrize("semitones", [-13, 13])
def test_a_shift_beyond_an_octave_is_refused(semitones):
    with pytest.raises(ValueError, match=rf"^semitones={semitones}; must be from -12 to 12$"):
        damage_clips(noise(1, 4096), torch.tensor([semitones]))


@pytest.mark.parametrize("semitones", EVERY_SHIFT)
def test_a_shifted_tone_has_frequency_times_ratio_and_the_way_back_restores_it(semitones):
    ratio = shift_ratio(semitones)
    clean = tone(440.0)
    shifted = pitch_shift(clean, ratio)
    assert strongest_hz(middle(shifted)) == pytest.approx(440.0 * ratio, abs=0.25)
    back = damage_clips(clean, torch.tensor([semitones]))
    assert strongest_hz(middle(back)) == pytest.approx(440.0, abs=0.25)
    # 0.01 dB was measured: resampling's and the vocoder's ripple. A wrong hop or window is dBs.
    assert level_db(middle(back)) == pytest.approx(level_db(middle(clean)), abs=0.05)


@pytest.mark.parametrize("semitones", [-12, 12])
def test_an_octave_equals_torchaudio_s_pitch_shift(semitones):
    """Where its ratio is a small fraction too, it is the published implementation."""
    clips = noise(2, 20_000)
    expected = AF.pitch_shift(clips, SAMPLE_RATE_HZ, semitones, n_fft=512, hop_length=128)
    # The same operations in the same order: equal up to a rounding of samples near 0.1.
    torch.testing.assert_close(
        pitch_shift(clips, shift_ratio(semitones)), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("semitones", EVERY_SHIFT)
@pytest.mark.parametrize("samples", [4096, 5001])
def test_length_is_kept(semitones, samples):
    clips = noise(2, samples)
    shifts = torch.full((2,), semitones)
    assert pitch_shift(clips, shift_ratio(semitones)).shape == (2, samples)
    assert damage_clips(clips, shifts).shape == (2, samples)
    assert low_pass_targets(clips, shifts).shape == (2, samples)


@pytest.mark.parametrize("change", [damage_clips, low_pass_targets])
def test_a_batch_of_mixed_shifts_equals_its_clips_one_by_one(change):
    clips, shifts = noise(6, 8192), torch.tensor([1, -3, 1, 5, -3, 12])
    alone = [change(clip[None], shift[None]) for clip, shift in zip(clips, shifts, strict=True)]
    # The vocoder sums phases over frames: last bits of thousands of radians, on samples near 0.1.
    torch.testing.assert_close(change(clips, shifts), torch.cat(alone), rtol=0, atol=1e-4)


@pytest.mark.parametrize("semitones", EVERY_SHIFT)
def test_damage_is_heard(semitones):
    clips = noise(1, 16_384)
    damaged = damage_clips(clips, torch.tensor([semitones]))
    # The phase of noise is gone: what differs is about as loud as the clip itself.
    assert gain_db(damaged - clips, clips) > -6


@pytest.mark.parametrize("semitones", UP)
def test_damage_up_and_back_leaves_nothing_above_the_cutoff(semitones):
    damaged = damage_clips(noise(1, 44_100), torch.tensor([semitones]))
    above = slice(int(cutoff(semitones) * SAMPLE_RATE_HZ / 2) + 1000, None)
    # The filter of torchaudio's resampling is not steep: -18 dB so close above the edge.
    assert gain_db(spectrum(damaged[0])[above], spectrum(noise(1, 44_100)[0])[above]) < -15


@pytest.mark.parametrize("semitones", UP)
def test_the_target_of_an_up_shift_is_silent_above_the_cutoff_and_untouched_below(semitones):
    clean = noise(1, SAMPLE_RATE_HZ)
    before = spectrum(clean[0])  # one bin a Hz
    after = spectrum(low_pass_targets(clean, torch.tensor([semitones]))[0])
    edge_hz = round(SAMPLE_RATE_HZ / 2 / shift_ratio(semitones))
    # A Blackman window's stop band is at -74 dB, and so is the ripple of its pass band.
    assert gain_db(after[edge_hz:], before[edge_hz:]) < -74
    kept = slice(0, edge_hz - 1100)  # the transition is 12 pi / 511 wide: 1036 Hz
    assert gain_db(after[kept] - before[kept], before[kept]) < -74


@pytest.mark.parametrize("semitones", [-n for n in UP])
def test_the_target_of_a_down_shift_is_the_clip_itself(semitones):
    clips = noise(2, 4096)
    assert torch.equal(low_pass_targets(clips, torch.full((2,), semitones)), clips)


def test_the_low_pass_delays_nothing_and_does_not_wrap_around():
    clips = torch.zeros(2, 8192)
    clips[0, 4000] = clips[1, 8191] = 1.0
    filtered = low_pass_targets(clips, torch.tensor([3, 3]))
    assert filtered.abs().argmax(1).tolist() == [4000, 8191]
    # Half the filter's 511 taps reach back from the end, none to the start.
    assert filtered[1, : 8191 - 255].abs().max() < 1e-6  # rounding of an FFT of ones


@pytest.mark.parametrize("semitones", EVERY_SHIFT)
def test_silence_stays_silent(semitones):
    silence, shifts = torch.zeros(2, 8192), torch.full((2,), semitones)
    assert torch.equal(damage_clips(silence, shifts), silence)
    assert torch.equal(low_pass_targets(silence, shifts), silence)


def test_the_clips_given_are_left_as_they_are():
    clips, shifts = noise(2, 8192), torch.tensor([2, -2])
    damage_clips(clips, shifts)
    low_pass_targets(clips, shifts)
    assert torch.equal(clips, noise(2, 8192))


MEASURE = """
import resource, sys, time, torch
from trainer.config import ALL_SHIFTS
from trainer.damage import damage_clips, low_pass_targets
def peak_bytes():
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status") as status:  # on Linux getrusage begins with the parent's peak
        return 1024 * int(next(line for line in status if "VmHWM" in line).split()[1])
clips = torch.rand(136, 44_100) - 0.5
damage_clips(clips[:1, :4096], torch.tensor([1]))  # what libraries load at first use
before = peak_bytes()
for shifts in (torch.tensor(ALL_SHIFTS).repeat(14)[:136], torch.full((136,), max(ALL_SHIFTS))):
    began_s = time.perf_counter()
    damage_clips(clips, shifts)
    low_pass_targets(clips, shifts)
    print(peak_bytes() - before, time.perf_counter() - began_s)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures with the resource module")
def test_136_seconds_of_clips_are_damaged_within_two_gigabytes():
    """Of mixed shifts, and, which takes the most, all of one."""
    command = [sys.executable, "-c", MEASURE]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        grown_bytes, seconds = line.split()
        print(f"{int(grown_bytes) / 1e9:.2f} GB, {float(seconds):.1f} s")  # noqa: T201
        assert int(grown_bytes) < 2e9
    assert len(output.splitlines()) == 2
