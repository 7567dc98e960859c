"""Spectral nets in real numbers: for formats that know no STFT and no complex values.

The STFT is a strided convolution with windowed cosines and sines, its inverse the transposed
convolution with the same kernels over the sum of the squared windows.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.spectral_net import BINS, HOP_SAMPLES, MAGNITUDE_FLOOR, N_FFT, SpectralNet


class RealSpectrogramNet(nn.Module):
    """What a spectral net does, sharing its layers: clips [batch, sample], over 512 samples long.

    The two agree but for rounding. On bins that hold nothing but the rounding of a Fourier
    transform, as around a loud pure tone, the net itself amplifies that to 1e-3 and more.
    """

    def __init__(self, net: SpectralNet) -> None:
        super().__init__()
        self.net = net
        self.kernels: Tensor
        self.shares: Tensor
        self.squared_window: Tensor
        window = net.window.double()
        self.register_buffer("kernels", _fourier_kernels(window), persistent=False)
        self.register_buffer("shares", _inverse_shares(), persistent=False)
        self.register_buffer("squared_window", (window**2).float()[None, None], persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        real, imaginary = self._transform(clips)
        magnitude = torch.sqrt(real**2 + imaginary**2).clamp_min(MAGNITUDE_FLOOR)
        log_gain, turn = self.net.decide(magnitude)
        gain = log_gain.exp()
        if not self.net.changes_input:
            gain = gain / magnitude
        along, across = gain * torch.cos(turn), gain * torch.sin(turn)
        return self._invert(
            real * along - imaginary * across,
            real * across + imaginary * along,
            samples=clips.shape[-1],
        )

    def _transform(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spectrum's real and imaginary part, each [batch, bin, frame]."""
        reach = N_FFT // 2
        padded = F.pad(clips.unsqueeze(1), (reach, reach), mode="reflect")  # [B, 1, T]
        real, imaginary = F.conv1d(padded, self.kernels, stride=HOP_SAMPLES).chunk(2, dim=1)
        return real, imaginary

    def _invert(self, real: Tensor, imaginary: Tensor, *, samples: int) -> Tensor:
        """Return the signal [batch, sample] of a spectrum."""
        spectrum = torch.cat((real, imaginary), dim=1) * self.shares
        added = F.conv_transpose1d(spectrum, self.kernels, stride=HOP_SAMPLES)
        ones = torch.ones_like(real[:1, :1])
        weights = F.conv_transpose1d(ones, self.squared_window, stride=HOP_SAMPLES)
        first = N_FFT // 2
        return (added / weights)[:, 0, first : first + samples]


def _fourier_kernels(window: Tensor) -> Tensor:
    """Return [2 * bin, 1, sample]: the real parts of all bins, then the imaginary ones."""
    bins, samples = torch.arange(BINS), torch.arange(N_FFT)
    turns = torch.outer(bins, samples) % N_FFT  # whole numbers: no angle is ever large
    angles = turns.double() * (2 * math.pi / N_FFT)
    return (torch.cat((angles.cos(), -angles.sin())) * window).float().unsqueeze(1)


def _inverse_shares() -> Tensor:
    """Return [2 * bin, 1]: what each bin adds to a real signal; all but two stand for a pair."""
    shares = torch.full((BINS,), 2.0)
    shares[0] = shares[-1] = 1.0
    return shares.repeat(2).unsqueeze(1) / N_FFT
