"""Distances between two batches of clips: the training loss and the metrics of validation.

Every one takes (estimate, target), both [batch, sample] at 44.1 kHz, and returns one value a clip,
[batch]. The order matters: convergence and SI-SDR are relative to the target.
"""

import functools

import torch
import torchaudio.functional as AF
from torch import Tensor
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ

STFT_SCALES = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and window in samples of each resolution of `stft_distance`."""

MEL_SCALES = tuple((32 * 2**i, 5 * 2**i) for i in range(7))
"""Window in samples and number of bands of each scale of `mel_distance`."""

_MAGNITUDE_FLOOR = 1e-4
_MEL_FLOOR = 1e-5
_LSD_FFT = 2048


def stft_distance(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the multi-resolution STFT distance, auraloss's with its defaults, of each clip.

    Yamamoto et al. 2020, Parallel WaveGAN (arXiv:1910.11480), equations 4 to 6: at each
    resolution the spectral convergence plus the L1 distance of natural-log magnitudes; the mean
    over resolutions. Finite on silence: magnitudes are floored at 1e-4.
    """
    _check_shapes(estimate, target)
    return torch.stack([_one_scale(estimate, target, *s) for s in STFT_SCALES]).mean(0)


def mel_distance(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the multi-scale mel distance of DAC's published configuration, unweighted.

    Kumar et al. 2023 (arXiv:2306.06546), 3.4: at seven window lengths, hop a quarter of it, the
    L1 mean of log10 mel magnitudes floored at 1e-5; the sum over scales.
    """
    _check_shapes(estimate, target)
    distances = []
    for window, bands in MEL_SCALES:
        mels = _mel_filters(window, bands, estimate.device)
        logs = [
            (_magnitude(x, window, window // 4, window, floor=0.0).transpose(1, 2) @ mels)
            .clamp_min(_MEL_FLOOR)
            .log10()
            for x in (estimate, target)
        ]
        distances.append((logs[0] - logs[1]).abs().mean((1, 2)))
    return torch.stack(distances).sum(0)


def log_spectral_distance_db(estimate: Tensor, target: Tensor, cutoff: Tensor) -> Tensor:
    """Return the log-spectral distance in dB of each clip, below its cut-off.

    Gray and Markel 1976: the root mean square over frequency of the difference of log powers,
    meaned over time. `cutoff` [batch] is the share of nyquist that counts, for up-shifted clips.
    """
    _check_shapes(estimate, target)
    difference = _log_power_db(estimate) - _log_power_db(target)  # [B, bin, frame]
    position = torch.linspace(0, 1, difference.shape[1], device=difference.device)
    counts = (position[None, :] <= cutoff[:, None]).to(difference.dtype)  # [B, bin]
    # A norm and no square root: its gradient is finite where the difference is zero.
    root = (difference * counts[:, :, None]).norm(dim=1) / counts.sum(1, keepdim=True).sqrt()
    distance: Tensor = root.mean(1)
    return distance


def si_sdr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio in dB of each clip; higher is better.

    Le Roux et al. 2019, SDR - half-baked or well done? (arXiv:1811.02508), equation 3.
    """
    _check_shapes(estimate, target)
    tiny = torch.finfo(target.dtype).eps
    scale = ((estimate * target).sum(1) + tiny) / (target.square().sum(1) + tiny)
    aim = scale[:, None] * target
    ratio = (aim.square().sum(1) + tiny) / ((estimate - aim).square().sum(1) + tiny)
    return 10 * ratio.log10()


def _check_shapes(estimate: Tensor, target: Tensor) -> None:
    if estimate.ndim != 2 or estimate.shape != target.shape:
        shapes = f"{list(estimate.shape)} and {list(target.shape)}"
        raise ValueError(f"estimate and target={shapes}; must be one shape [batch, sample]")


def _magnitude(clips: Tensor, n_fft: int, hop: int, window: int, *, floor: float) -> Tensor:
    """Return STFT magnitudes [batch, bin, frame], floored."""
    hann = torch.hann_window(window, device=clips.device)
    spectrum = torch.stft(clips, n_fft, hop, window, window=hann, return_complex=True)
    return spectrum.abs().clamp_min(floor)


def _one_scale(estimate: Tensor, target: Tensor, n_fft: int, hop: int, window: int) -> Tensor:
    made = _magnitude(estimate, n_fft, hop, window, floor=_MAGNITUDE_FLOOR)
    aim = _magnitude(target, n_fft, hop, window, floor=_MAGNITUDE_FLOOR)
    convergence = (aim - made).flatten(1).norm(dim=1) / aim.flatten(1).norm(dim=1)
    log_distance = F.l1_loss(made.log(), aim.log(), reduction="none").mean((1, 2))
    total: Tensor = convergence + log_distance
    return total


def _log_power_db(clips: Tensor) -> Tensor:
    magnitude = _magnitude(clips, _LSD_FFT, _LSD_FFT // 4, _LSD_FFT, floor=_MAGNITUDE_FLOOR)
    return 20 * magnitude.log10()


@functools.cache
def _mel_filters(window: int, bands: int, device: torch.device) -> Tensor:
    """Return Slaney's mel filters [bin, band] from 0 Hz to nyquist."""
    filters: Tensor = AF.melscale_fbanks(
        window // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, bands, SAMPLE_RATE_HZ, "slaney", "slaney"
    )
    return filters.to(device)
