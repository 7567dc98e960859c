"""Damage: a pitch shift by n semitones and back, and the low-pass that its target needs.

A shift is a phase-vocoder time stretch followed by resampling, on whatever device the clips are.
"""

import functools
from collections.abc import Callable
from fractions import Fraction

import torch
import torchaudio.functional as AF
from torch import Tensor
from torch.nn import functional as F

from trainer.config import MAX_SHIFT_SEMITONES

N_FFT = 512
HOP_SAMPLES = N_FFT // 4
LOW_PASS_TAPS = 511
"""Long enough for a transition of about 500 Hz at 44.1 kHz."""

_RATIOS = (
    Fraction(18, 17),
    Fraction(9, 8),
    Fraction(6, 5),
    Fraction(5, 4),
    Fraction(4, 3),
    Fraction(17, 12),
    Fraction(3, 2),
    Fraction(8, 5),
    Fraction(5, 3),
    Fraction(16, 9),
    Fraction(17, 9),
    Fraction(2, 1),
)
"""Frequency ratio of 1 to 12 semitones, each within 16 cents of 2**(n/12). Small numbers because
the memory of torchaudio's resampling grows with them."""


def shift_ratio(semitones: int) -> Fraction:
    """Return the frequency ratio of a shift, above 1 for upward ones.

    Raises ValueError unless `semitones` lies in -12..12.
    """
    if abs(semitones) > MAX_SHIFT_SEMITONES:
        limit = MAX_SHIFT_SEMITONES
        raise ValueError(f"semitones={semitones}; must be from -{limit} to {limit}")
    if semitones == 0:
        return Fraction(1)
    ratio = _RATIOS[abs(semitones) - 1]
    return ratio if semitones > 0 else 1 / ratio


def pitch_shift(clips: Tensor, ratio: Fraction) -> Tensor:
    """Multiply the frequencies in clips [batch, sample] by `ratio`, keeping their length."""
    samples = clips.shape[-1]
    stretched = _stretch(clips, ratio)
    shifted = AF.resample(stretched, ratio.numerator, ratio.denominator)
    return _fit(shifted, samples)


def damage_clips(clips: Tensor, shifts: Tensor) -> Tensor:
    """Shift each of clips [batch, sample] by its semitones in shifts [batch], and back."""
    return _by_shift(clips, shifts, _up_and_back)


def low_pass_targets(clips: Tensor, shifts: Tensor) -> Tensor:
    """Take from each of clips [batch, sample] what its shift destroys for good.

    An upward shift pushes everything above nyquist / ratio over the edge: there the target is
    silent. Clips shifted down (shifts [batch] below 0) are returned as they are.
    """
    return _by_shift(clips, shifts, _low_pass_for_shift)


def cutoff(semitones: int) -> float:
    """Return the highest frequency that survives a shift and back, as a share of nyquist."""
    return float(min(Fraction(1), 1 / shift_ratio(semitones)))


def _by_shift(clips: Tensor, shifts: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply `change(clips of one shift, the shift)` once for each shift that occurs."""
    result = torch.empty_like(clips)
    for semitones in sorted(set(shifts.tolist())):
        chosen = torch.nonzero(shifts == semitones).flatten().to(clips.device)
        result[chosen] = change(clips[chosen], semitones)
    return result


def _up_and_back(clips: Tensor, semitones: int) -> Tensor:
    ratio = shift_ratio(semitones)
    return pitch_shift(pitch_shift(clips, ratio), 1 / ratio)


def _stretch(clips: Tensor, ratio: Fraction) -> Tensor:
    """Make clips [batch, sample] `ratio` times as long at the same pitch."""
    window = torch.hann_window(N_FFT, device=clips.device)
    spectrum = torch.stft(clips, N_FFT, HOP_SAMPLES, window=window, return_complex=True)
    advance = torch.linspace(
        0, torch.pi * HOP_SAMPLES, spectrum.shape[-2], device=clips.device
    ).unsqueeze(-1)  # [bin, 1]: the phase that a bin's centre gains per hop
    stretched = AF.phase_vocoder(spectrum, float(1 / ratio), advance)
    length = round(clips.shape[-1] * ratio)
    return torch.istft(stretched, N_FFT, HOP_SAMPLES, window=window, length=length)


def _fit(clips: Tensor, samples: int) -> Tensor:
    """Cut or zero-pad clips [batch, sample] at the end to a length."""
    return F.pad(clips, (0, max(0, samples - clips.shape[-1])))[..., :samples]


def _low_pass_for_shift(clips: Tensor, semitones: int) -> Tensor:
    if semitones <= 0:
        return clips
    response = _low_pass_response(semitones).to(clips.device)
    pad = LOW_PASS_TAPS // 2
    size = clips.shape[-1] + LOW_PASS_TAPS - 1
    spectrum = torch.fft.rfft(clips, n=size) * torch.fft.rfft(response, n=size)
    filtered: Tensor = torch.fft.irfft(spectrum, n=size)
    return filtered[..., pad : pad + clips.shape[-1]]


@functools.cache
def _low_pass_response(semitones: int) -> Tensor:
    """Return a Blackman-windowed sinc [tap] whose stop band begins at the shift's cut-off.

    Oppenheim and Schafer, Discrete-Time Signal Processing, 7.5: the transition of a Blackman
    window of N taps is 12 pi / N wide, so the ideal edge lies half of that below the cut-off.
    """
    edge = cutoff(semitones) - 6 / LOW_PASS_TAPS  # a share of nyquist
    taps = torch.arange(LOW_PASS_TAPS, dtype=torch.float64) - LOW_PASS_TAPS // 2
    response = edge * torch.sinc(edge * taps)
    response *= torch.blackman_window(LOW_PASS_TAPS, periodic=False, dtype=torch.float64)
    return (response / response.sum()).float()
