"""Alignment: how much later one recording of a sound is than another.

Damage, and a net that undoes it, leave little of the phase, so a correlation of waveforms can
mislead; one of envelopes is coarse. Both make proposals, and the STFT distance decides.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import scipy  # its parts load when first used: a second that most commands can do without
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ
from trainer.losses.spectral import stft_distance
from trainer.recordings import MIN_SECONDS, Samples

MIN_COMMON_SAMPLES = round(MIN_SECONDS * SAMPLE_RATE_HZ)
"""What two recordings must have in common at any lag considered."""

_WAVEFORM_HOP = 4
_ENVELOPE_HOP = 64
_EXCERPT_SAMPLES = 10 * SAMPLE_RATE_HZ


def find_lag(reference: Samples, estimate: Samples, *, device: torch.device) -> int:
    """Return by how many samples `estimate` [sample] is later than `reference` [sample].

    Both are at 44.1 kHz. Raises ValueError where one of them is shorter than half a second.
    """
    _check_length("reference", reference)
    _check_length("estimate", estimate)
    if not (reference.any() and estimate.any()):
        return 0  # silence is like itself at any lag

    @functools.cache
    def distance(lag: int) -> float:
        common = cut_to_common(reference, estimate, lag)
        if len(common[0]) < MIN_COMMON_SAMPLES:
            return math.inf
        aim, made = (_at_unit_loudness(each).to(device) for each in _loudest_excerpt(*common))
        return stft_distance(made, aim).item()

    proposals = (
        0,
        _propose_lag(reference, estimate, _waveform, _WAVEFORM_HOP),
        _propose_lag(reference, estimate, _envelope, _ENVELOPE_HOP),
    )
    return _descend(min(proposals, key=distance), distance)


def cut_to_common(reference: Samples, estimate: Samples, lag: int) -> tuple[Samples, Samples]:
    """Return the parts of both [sample] that sound together when `estimate` is `lag` later."""
    reference, estimate = reference[max(0, -lag) :], estimate[max(0, lag) :]
    common = min(len(reference), len(estimate))
    return reference[:common], estimate[:common]


def _check_length(field: str, signal: Samples) -> None:
    if len(signal) < MIN_COMMON_SAMPLES:
        seconds = f"{len(signal) / SAMPLE_RATE_HZ:.2f} s"
        raise ValueError(f"{field}={seconds}; must be at least {MIN_SECONDS} s to be aligned")


def _propose_lag(
    reference: Samples, estimate: Samples, summary: Callable[[Samples], Samples], hop_samples: int
) -> int:
    """Return where summaries of every hop correlate best, leaving about enough in common."""
    aim, made = (summary(_cut(signal, hop_samples)) for signal in (reference, estimate))
    least = MIN_COMMON_SAMPLES // hop_samples
    correlation = scipy.signal.correlate(made, aim, method="fft")  # from lag 1 - len(aim) on
    allowed = correlation[least - 1 : len(correlation) - least + 1]
    return hop_samples * (int(allowed.argmax()) + least - len(aim))


def _cut(signal: Samples, hop_samples: int) -> Samples:
    """Return the whole hops of a signal, [sample] -> [hop, sample]."""
    hops = len(signal) // hop_samples
    return signal[: hops * hop_samples].reshape(hops, hop_samples)


def _waveform(hops: Samples) -> Samples:
    return np.asarray(hops.mean(axis=1))


def _envelope(hops: Samples) -> Samples:
    loudness = np.sqrt(np.einsum("ij,ij->i", hops, hops))
    return np.asarray(loudness - loudness.mean())


def _loudest_excerpt(reference: Samples, estimate: Samples) -> tuple[Samples, Samples]:
    """Return ten seconds of both, from where the reference has the most energy."""
    last = max(0, len(reference) - _EXCERPT_SAMPLES)
    starts = [*range(0, last, _EXCERPT_SAMPLES), last]
    pieces = [slice(start, start + _EXCERPT_SAMPLES) for start in starts]
    loudest = max(pieces, key=lambda piece: _energy(reference[piece]))
    return reference[loudest], estimate[loudest]


def _energy(signal: Samples) -> float:
    return float(np.dot(signal, signal))


def _at_unit_loudness(signal: Samples) -> Tensor:
    """Return [sample] -> [1, sample] with a root mean square of 1; silence stays silent."""
    unit: Tensor = F.normalize(torch.from_numpy(signal)[None])
    return math.sqrt(len(signal)) * unit


def _descend(lag: int, distance: Callable[[int], float]) -> int:
    """Return the best lag near a proposal, which is a whole number of hops."""
    step = _ENVELOPE_HOP // 2
    while step >= 1:
        lag = min((lag, lag - step, lag + step), key=distance)
        step //= 2
    return lag
