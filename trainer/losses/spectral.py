"""Distances between two batches of clips: the training loss and the metrics of validation.

Every one takes (estimate, target), both [batch, sample] at 44.1 kHz, and returns one value a clip,
[batch]. The order matters: convergence and SI-SDR are relative to the target. Spectra are taken a
stretch at a time, so that a clip may be a recording of hours.
"""

import functools
import itertools
from collections.abc import Iterator

import torch
import torchaudio.functional as AF
from torch import Tensor
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ
from trainer.losses.shapes import check_pair

STFT_SCALES = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and window in samples of each resolution of `stft_distance`."""

MEL_SCALES = tuple((32 * 2**i, 5 * 2**i) for i in range(7))
"""Window in samples and number of bands of each scale of `mel_distance`."""

_Scale = tuple[int, int, int]
"""FFT size, hop and window in samples."""

MIN_SAMPLES = 2048 // 2 + 1
"""The shortest clip: half of the longest FFT is continued by reflection at either end."""
STRETCH_SAMPLES = 1 << 18
"""The least that a long clip is divided into: 6 s, some 150 MB of spectra. A clip under twice that
stays whole. Dividing training's would change its losses' last bits: raise `TRAINER_REVISION`."""

_MAGNITUDE_FLOOR = 1e-4
_MEL_FLOOR = 1e-5
_LSD_FFT = 2048


def stft_distance(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the multi-resolution STFT distance, auraloss's with its defaults, of each clip.

    Yamamoto et al. 2020, Parallel WaveGAN (arXiv:1910.11480), equations 4 to 6: at each
    resolution the spectral convergence plus the L1 distance of natural-log magnitudes; the mean
    over resolutions. Finite on silence: magnitudes are floored at 1e-4.
    """
    check_pair(estimate, target)
    return torch.stack([_one_scale(estimate, target, s) for s in STFT_SCALES]).mean(0)


def mel_distance(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the multi-scale mel distance of DAC's published configuration, unweighted.

    Kumar et al. 2023 (arXiv:2306.06546), 3.4: at seven window lengths, hop a quarter of it, the
    L1 mean of log10 mel magnitudes floored at 1e-5; the sum over scales.
    """
    check_pair(estimate, target)
    distances = []
    for window, bands in MEL_SCALES:
        scale = (window, window // 4, window)
        mels = _mel_filters(window, bands, estimate.device)
        distance = torch.zeros_like(target[:, 0])
        for made, aim, share in _magnitudes(estimate, target, scale, floor=0.0):
            difference = _log_mel(made, mels) - _log_mel(aim, mels)
            distance = distance + share * difference.abs().mean((1, 2))
        distances.append(distance)
    return torch.stack(distances).sum(0)


def log_spectral_distance_db(estimate: Tensor, target: Tensor, cutoff: Tensor) -> Tensor:
    """Return the log-spectral distance in dB of each clip, below its cut-off.

    Gray and Markel 1976: the root mean square over frequency of the difference of log powers,
    meaned over time. `cutoff` [batch] is the share of nyquist that counts, for up-shifted clips.
    """
    check_pair(estimate, target)
    position = torch.linspace(0, 1, _LSD_FFT // 2 + 1, device=estimate.device)
    counts = (position[None, :] <= cutoff[:, None]).to(estimate.dtype)  # [B, bin]
    scale = (_LSD_FFT, _LSD_FFT // 4, _LSD_FFT)
    distance = torch.zeros_like(target[:, 0])
    for made, aim, share in _magnitudes(estimate, target, scale, floor=_MAGNITUDE_FLOOR):
        difference = 20 * made.log10() - 20 * aim.log10()  # [B, bin, frame]
        # A norm and no square root: its gradient is finite where the difference is zero.
        root = (difference * counts[:, :, None]).norm(dim=1) / counts.sum(1, keepdim=True).sqrt()
        distance = distance + share * root.mean(1)
    return distance


def l1_distance(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of samples of each clip."""
    check_pair(estimate, target)
    return (estimate - target).abs().mean(1)


def si_sdr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio in dB of each clip; higher is better.

    Le Roux et al. 2019, SDR - half-baked or well done? (arXiv:1811.02508), equation 3.
    """
    check_pair(estimate, target)
    tiny = torch.finfo(target.dtype).eps
    scale = ((estimate * target).sum(1) + tiny) / (target.square().sum(1) + tiny)
    aim = scale[:, None] * target
    ratio = (aim.square().sum(1) + tiny) / ((estimate - aim).square().sum(1) + tiny)
    return 10 * ratio.log10()


def _one_scale(estimate: Tensor, target: Tensor, scale: _Scale) -> Tensor:
    error = size = log_distance = torch.zeros_like(target[:, 0])
    for made, aim, share in _magnitudes(estimate, target, scale, floor=_MAGNITUDE_FLOOR):
        error = _joint_norm(error, (aim - made).flatten(1).norm(dim=1))
        size = _joint_norm(size, aim.flatten(1).norm(dim=1))
        log_distances = F.l1_loss(made.log(), aim.log(), reduction="none")
        log_distance = log_distance + share * log_distances.mean((1, 2))
    return error / size + log_distance


def _joint_norm(norm: Tensor, other: Tensor) -> Tensor:
    """Return the norm of what two norms [batch] are of, together; its gradient is finite at 0."""
    joint: Tensor = torch.stack([norm, other]).norm(dim=0)
    return joint


def _log_mel(magnitude: Tensor, mels: Tensor) -> Tensor:
    return (magnitude.transpose(1, 2) @ mels).clamp_min(_MEL_FLOOR).log10()


def _magnitudes(
    estimate: Tensor, target: Tensor, scale: _Scale, *, floor: float
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield floored STFT magnitudes [batch, bin, frame] of both, and their share of all frames.

    The frames are those of `torch.stft`: centred on multiples of the hop, and the clip continued
    by reflection.
    """
    n_fft, hop, _ = scale
    frames = estimate.shape[1] // hop + 1
    at_once = STRETCH_SAMPLES // hop
    # No stretch is shorter, the last one neither: reflection needs half an FFT of samples.
    bounds = [*range(0, max(1, frames - at_once + 1), at_once), frames]
    for first, past in itertools.pairwise(bounds):
        begin, end = first * hop - n_fft // 2, (past - 1) * hop + n_fft // 2
        made, aim = (
            _magnitude(_stretch(clips, begin, end), scale).clamp_min(floor)
            for clips in (estimate, target)
        )
        yield made, aim, (past - first) / frames


def _stretch(clips: Tensor, begin: int, end: int) -> Tensor:
    """Return samples from `begin` to `end` of clips [batch, sample] continued by reflection."""
    samples = clips.shape[1]
    inside = clips[:, max(0, begin) : end]
    return F.pad(inside, (max(0, -begin), max(0, end - samples)), mode="reflect")


def _magnitude(stretch: Tensor, scale: _Scale) -> Tensor:
    n_fft, hop, window = scale
    hann = torch.hann_window(window, device=stretch.device)
    spectrum = torch.stft(
        stretch, n_fft, hop, window, window=hann, center=False, return_complex=True
    )
    return spectrum.abs()


@functools.cache
def _mel_filters(window: int, bands: int, device: torch.device) -> Tensor:
    """Return Slaney's mel filters [bin, band] from 0 Hz to nyquist."""
    filters: Tensor = AF.melscale_fbanks(
        window // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, bands, SAMPLE_RATE_HZ, "slaney", "slaney"
    )
    return filters.to(device)
