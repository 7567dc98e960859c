import inspect
import math
import re
import warnings

import auraloss
import numpy as np
import pytest
import torch
from tests_support import reference
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.config import SAMPLE_RATE_HZ
from trainer.losses import spectral
from trainer.losses.spectral import (
    STFT_SCALES,
    STRETCH_SAMPLES,
    log_spectral_distance_db,
    mel_distance,
    si_sdr_db,
    stft_distance,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SIMILARITIES = {"si_sdr_db"}
"""Higher is better, and not zero for equal clips."""


def public_functions(module):
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name: function
        for name, function in functions
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


ALL = public_functions(spectral)
DISTANCES = {name: loss for name, loss in ALL.items() if name not in SIMILARITIES}


def measure(name, estimate, target):
    """Return what the loss of this name gives, with every frequency counted."""
    if "cutoff" in inspect.signature(ALL[name]).parameters:
        return ALL[name](estimate, target, torch.ones(len(target)))
    return ALL[name](estimate, target)


def noise(clips, samples, level=0.1, seed=0):
    return level * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


def sine(hz, samples=16_384, level=0.1):
    return level * torch.sin(2 * math.pi * hz * torch.arange(samples) / SAMPLE_RATE_HZ)[None]


@pytest.fixture(scope="module")
def published_mel():
    """Return DAC's mel distance of two clips [sample], in its published configuration."""
    with warnings.catch_warnings():  # what importing audiotools and its dependencies says
        warnings.simplefilter("ignore")
        from audiotools import AudioSignal
        from dac.nn.loss import MelSpectrogramLoss
    published = MelSpectrogramLoss(
        n_mels=[5, 10, 20, 40, 80, 160, 320],
        window_lengths=[32, 64, 128, 256, 512, 1024, 2048],
        mel_fmin=[0.0] * 7,
        mel_fmax=[None] * 7,
        pow=1.0,
        clamp_eps=1e-5,
        mag_weight=0.0,
    )

    def distance(estimate, target):
        signals = [AudioSignal(clip.numpy(), SAMPLE_RATE_HZ) for clip in (estimate, target)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return published(*signals).item()

    return distance


class LargestTensor(TorchDispatchMode):
    """Notes how many values the largest tensor made within has."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [each.numel() for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        self.values = max(self.values, *made, 0)
        return result


@pytest.fixture(scope="module")
def long_pair():
    """A clip of three stretches, and an estimate that differs at the ends and where it divides.

    There alone: a frame missed, doubled or reflected there changes the distance by a lot.
    """
    samples = 3 * STRETCH_SAMPLES + 77_777
    target = noise(1, samples)
    estimate = target.clone()
    for middle in (0, STRETCH_SAMPLES, 2 * STRETCH_SAMPLES, samples):
        changed = slice(max(0, middle - 3000), middle + 3000)
        estimate[:, changed] = noise(1, samples, seed=1)[:, changed]
    return estimate, target


# The contract of every loss and metric: found by listing.


def test_the_listing_finds_the_metrics_of_design_md():
    expected = {
        "stft_distance",
        "mel_distance",
        "log_spectral_distance_db",
        "l1_distance",
        "si_sdr_db",
    }
    assert expected <= ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_there_is_one_value_a_clip_and_it_is_that_of_the_clip_alone(name):
    estimate, target = noise(3, 8192), noise(3, 8192, seed=1)
    together = measure(name, estimate, target)
    assert together.shape == (3,)
    assert len(set(together.tolist())) == 3
    pairs = zip(estimate, target, strict=True)
    alone = torch.cat([measure(name, one[None], other[None]) for one, other in pairs])
    # Sums over a batch may be taken in another order.
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_zero_for_equal_clips_and_positive_otherwise(name):
    clips = noise(2, 8192)
    assert measure(name, clips, clips).tolist() == [0.0, 0.0]
    assert (measure(name, clips + noise(2, 8192, 0.01, seed=1), clips) > 0).all()


@pytest.mark.parametrize("name", ALL)
def test_more_noise_is_worse(name):
    target, added = noise(2, 8192), noise(2, 8192, seed=1)
    values = [measure(name, target + gain * added, target) for gain in (0.001, 0.03, 1.0)]
    rising = [(after > before).all().item() for before, after in zip(values, values[1:])]  # noqa: B905
    assert rising == [name not in SIMILARITIES] * 2


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("made", "aim"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)])
def test_silence_has_a_finite_value_and_a_finite_gradient(name, made, aim):
    estimate = noise(2, 8192, made).requires_grad_()
    value = measure(name, estimate, noise(2, 8192, aim, seed=1))
    value.sum().backward()
    assert value.isfinite().all()
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_equal_clips_have_a_finite_gradient(name):
    estimate = noise(2, 8192).requires_grad_()
    measure(name, estimate, noise(2, 8192)).sum().backward()
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_a_pause_in_both_clips_has_a_finite_gradient(name):
    pause = torch.ones(8192)
    pause[2000:6000] = 0.0
    estimate = (noise(2, 8192) * pause).requires_grad_()
    measure(name, estimate, noise(2, 8192, seed=1) * pause).sum().backward()
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("made", "aim"), [((2, 8192), (2, 8191)), ((1, 8192), (2, 8192)), ((2, 1, 8192), (2, 1, 8192))]
)
def test_other_shapes_are_refused(name, made, aim):
    shapes = f"{list(made)} and {list(aim)}"
    expected = f"estimate and target={shapes}; must be one shape [batch, sample]"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        measure(name, torch.zeros(made), torch.zeros(aim))


# Each against the published implementation, a slow reference or a closed form.


@pytest.mark.parametrize("level", [0.1, 1e-6], ids=["sound", "near silence"])
def test_the_stft_distance_is_auraloss_s(level):
    estimate, target = noise(3, 20_000, level), noise(3, 20_000, seed=1)
    published = auraloss.freq.MultiResolutionSTFTLoss()
    pairs = zip(estimate, target, strict=True)
    expected = torch.stack([published(one[None, None], other[None, None]) for one, other in pairs])
    # The same sums in another order, in float32.
    torch.testing.assert_close(stft_distance(estimate, target), expected, rtol=2e-6, atol=0)


def test_the_stft_distance_is_the_paper_s_by_direct_dft():
    estimate, target = noise(1, 1200), noise(1, 1200, seed=1) + sine(1000.0, 1200)
    expected = reference.stft_distance(estimate[0].numpy(), target[0].numpy(), STFT_SCALES)
    # float32 against float64: logarithms of faint bins lose the most.
    assert stft_distance(estimate, target).item() == pytest.approx(expected, rel=1e-5)


def test_the_scales_are_those_of_auraloss():
    published = auraloss.freq.MultiResolutionSTFTLoss()
    scales = zip(published.fft_sizes, published.hop_sizes, published.win_lengths, strict=True)
    assert tuple(scales) == STFT_SCALES


def test_the_order_of_arguments_matters():
    one, louder = noise(1, 8192), noise(1, 8192, level=0.2, seed=1)
    assert stft_distance(one, louder).item() < 0.8 * stft_distance(louder, one).item()
    assert si_sdr_db(one, one + 0.1).item() != si_sdr_db(one + 0.1, one).item()


def test_the_gain_has_its_closed_form_in_the_stft_distance():
    target = noise(1, 20_000)  # loud: no magnitude near the floor counts for much
    # Convergence |1 - g|, log distance |ln g|, at every scale.
    assert stft_distance(2 * target, target).item() == pytest.approx(1 + math.log(2), rel=1e-4)


def test_the_mel_distance_is_dac_s_in_its_published_configuration(published_mel):
    estimate, target = noise(2, 16_384), noise(2, 16_384, seed=1) + sine(440.0)
    estimate[1, 4000:9000] = 0.0  # where both are clamped
    for i, value in enumerate(mel_distance(estimate, target)):
        # librosa's filters against torchaudio's: float32 in other orders.
        assert value.item() == pytest.approx(published_mel(estimate[i], target[i]), rel=1e-5)


def test_the_gain_has_its_closed_form_in_the_mel_distance():
    target = noise(1, 20_000)
    # log10 g at each of seven scales. The coarsest windows have bands that hold no bin: none here.
    assert mel_distance(10 * target, target).item() == pytest.approx(7.0, rel=1e-2)


@pytest.mark.parametrize("gain", [0.5, 2.0, 10.0])
def test_the_log_spectral_distance_of_a_gain_is_that_gain_in_db(gain):
    target = noise(2, 16_384)
    distance = log_spectral_distance_db(gain * target, target, torch.tensor([1.0, 0.5]))
    expected = abs(20 * math.log10(gain))
    assert distance.tolist() == pytest.approx([expected] * 2, rel=1e-5)  # float32 logarithms


def test_the_log_spectral_distance_is_gray_and_markel_s_by_direct_dft():
    estimate, target = noise(1, 4096), noise(1, 4096, seed=1)
    made, aim = (reference.stft_magnitude(x[0], 2048, 512, 2048) for x in (estimate, target))
    db = 20 * np.log10(made[:, :513] / aim[:, :513])  # bins up to half of nyquist, itself included
    expected = np.mean(np.sqrt(np.mean(db**2, axis=1)))
    distance = log_spectral_distance_db(estimate, target, torch.tensor([0.5]))
    assert distance.item() == pytest.approx(expected, rel=1e-4)  # float32 of faint bins


def test_the_log_spectral_distance_counts_each_clip_up_to_its_own_cutoff():
    target = noise(1, 16_384).repeat(2, 1)
    estimate = target + sine(15_000.0, level=1.0)  # 0.68 of nyquist
    below, all_of_it = log_spectral_distance_db(estimate, target, torch.tensor([0.6, 1.0]))
    # What is left of the tone below is the skirt of its window at the clip's reflected ends.
    assert 3 * below < all_of_it


@pytest.mark.parametrize("noise_level", [0.01, 1.0])
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_powers_whatever_the_gain(noise_level, gain):
    phase = 2 * math.pi * 10 * torch.arange(8192) / 8192  # whole periods: sine and cosine are
    target, added = torch.sin(phase)[None], noise_level * torch.cos(phase)[None]  # orthogonal
    expected = -20 * math.log10(noise_level)
    value = si_sdr_db(gain * (target + added), target).item()
    assert value == pytest.approx(expected, abs=1e-3)  # sums of 8192 float32 squares


def test_si_sdr_of_a_scaled_target_is_high():
    target = noise(1, 8192)
    assert si_sdr_db(0.3 * target, target).item() > 60


# Recordings, longer than the stretches that spectra are taken in: the same values.


def test_the_stft_distance_of_a_recording_is_auraloss_s(long_pair):
    published = auraloss.freq.MultiResolutionSTFTLoss()
    for scale in published.stft_losses:  # in float32 its own sums of millions are off by 9e-6
        scale.window = scale.window.double()
    expected = published(*(clips[None].double() for clips in long_pair)).item()
    assert stft_distance(*long_pair).item() == pytest.approx(expected, rel=1e-5)


def test_the_mel_distance_of_a_recording_is_dac_s(long_pair, published_mel):
    estimate, target = long_pair
    expected = published_mel(estimate[0], target[0])
    assert mel_distance(estimate, target).item() == pytest.approx(expected, rel=1e-5)


def test_the_log_spectral_distance_of_a_recording_is_that_of_its_whole_spectrum(long_pair):
    window = torch.hann_window(2048, dtype=torch.float64)
    made, aim = (
        torch.stft(clip.double(), 2048, 512, window=window, return_complex=True).abs()
        for clip in long_pair
    )
    db = 20 * (made.clamp_min(1e-4) / aim.clamp_min(1e-4)).log10()  # [1, bin, frame]
    expected = db.square().mean(1).sqrt().mean().item()
    distance = log_spectral_distance_db(*long_pair, torch.ones(1))
    assert distance.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", DISTANCES)
def test_equal_recordings_have_a_finite_gradient(name, long_pair):
    _, target = long_pair
    estimate = target.clone().requires_grad_()
    measure(name, estimate, target).sum().backward()
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize("name", DISTANCES)
def test_no_spectrum_of_a_recording_is_longer_than_two_stretches(name, long_pair):
    with torch.no_grad(), LargestTensor() as largest:
        measure(name, *long_pair)
    overlap = 512 / 50  # the most: how often one sample is in a frame
    assert largest.values <= 2 * overlap * STRETCH_SAMPLES
