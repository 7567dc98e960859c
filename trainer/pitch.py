"""Pitch shifting of streams: the damage's phase vocoder with its phases carried along.

The same as trainer.damage does to clips, for recordings that would not fit into memory.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ
from trainer.damage import HOP_SAMPLES, N_FFT
from trainer.recordings import Samples
from trainer.streams import Stream, at_least, resample

_OVERLAP = N_FFT // HOP_SAMPLES


def shift_pitch(stream: Stream, ratio: float) -> Stream:
    """Multiply the frequencies in a stream at 44.1 kHz by `ratio`, keeping its length.

    The last block may be some samples short or over.
    """
    played_hz = SAMPLE_RATE_HZ * ratio
    return resample(stretch(stream, ratio), from_hz=played_hz, to_hz=SAMPLE_RATE_HZ)


def stretch(stream: Stream, ratio: float) -> Stream:
    """Make a stream `ratio` times as long at the same pitch, as damage does clips.

    Flanagan and Golden 1966, Phase Vocoder; after torchaudio's, with which it agrees. Of the end
    there is up to a window too much.
    """
    vocoder, synthesis = _Vocoder(1 / ratio), _OverlapAdd()
    frames_of = _Analysis()
    for block in at_least(stream, N_FFT):
        yield synthesis.add(vocoder.take(frames_of.take(block)))
    yield synthesis.add(vocoder.take(frames_of.finish(), is_last=True))
    yield synthesis.finish()


class _Analysis:
    """STFT of a stream, frames centred on multiples of the hop, reflected at both ends."""

    def __init__(self) -> None:
        self._window = torch.hann_window(N_FFT)
        self._held = torch.zeros(0)
        self._is_begun = False

    def take(self, block: Samples) -> Tensor:
        """Return the new frames [channel, bin, frame] of a block [frame, channel]."""
        new = torch.from_numpy(np.ascontiguousarray(block.T))
        self._held = new if self._held.numel() == 0 else torch.cat((self._held, new), dim=1)
        if not self._is_begun:
            if self._held.shape[1] <= N_FFT // 2:
                return self._frames(0)
            self._held = F.pad(self._held, (N_FFT // 2, 0), mode="reflect")
            self._is_begun = True
        # What the reflection at the end will need stays here.
        return self._frames((self._held.shape[1] - N_FFT // 2 - 1 - N_FFT) // HOP_SAMPLES + 1)

    def finish(self) -> Tensor:
        """Return the last frames."""
        self._held = F.pad(self._held, (0, N_FFT // 2), mode="reflect")
        return self._frames((self._held.shape[1] - N_FFT) // HOP_SAMPLES + 1)

    def _frames(self, count: int) -> Tensor:
        if count <= 0:
            return torch.zeros(self._held.shape[0], N_FFT // 2 + 1, 0, dtype=torch.complex64)
        samples = self._held[:, : (count - 1) * HOP_SAMPLES + N_FFT]
        self._held = self._held[:, count * HOP_SAMPLES :]
        return torch.stft(
            samples, N_FFT, HOP_SAMPLES, window=self._window, center=False, return_complex=True
        )


class _Vocoder:
    """Frames at a `rate` of their own: magnitudes interpolated, phases advanced from each step to
    the next by what they advance in the original."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._step = 0
        """Of the next frame to make, which lies at step * rate in the original."""
        self._held = torch.zeros(0)
        self._first = 0
        """Which of the original's frames the first held one is."""
        self._phase = torch.zeros(0)
        bins = N_FFT // 2 + 1
        self._advance = torch.linspace(0, math.pi * HOP_SAMPLES, bins, dtype=torch.float64)[:, None]

    def take(self, frames: Tensor, *, is_last: bool = False) -> Tensor:
        """Return what can be made so far, [channel, bin, frame], of frames of the original."""
        if self._phase.numel() == 0:
            if frames.shape[-1] == 0:
                return frames
            self._held, self._phase = frames, frames[..., :1].angle().double()
        else:
            self._held = torch.cat((self._held, frames), dim=-1)
        seen = self._first + self._held.shape[-1]
        end = seen - 1  # what lies beyond needs a frame that has not been seen yet
        if is_last:
            end, self._held = seen, F.pad(self._held, (0, 2))
        most = max(0, math.ceil(end / self._rate) + 1 - self._step)
        places = self._rate * torch.arange(self._step, self._step + most, dtype=torch.float64)
        places = places[places < end]
        if len(places) == 0:
            return frames[..., :0]
        made = self._make(places)
        self._step += len(places)
        passed = min(math.floor(self._step * self._rate) - self._first, self._held.shape[-1])
        self._held = self._held[..., passed:]
        self._first += passed
        return made

    def _make(self, places: Tensor) -> Tensor:
        """Return frames at places [frame] of the original."""
        before = places.long() - self._first
        weight = places % 1.0
        left, right = self._held[..., before], self._held[..., before + 1]
        turn = right.angle().double() - left.angle().double() - self._advance
        gained = turn - 2 * math.pi * torch.round(turn / (2 * math.pi)) + self._advance
        phases = self._phase + F.pad(gained.cumsum(-1), (1, 0))
        self._phase = phases[..., -1:] % (2 * math.pi)
        magnitude = weight * right.abs() + (1 - weight) * left.abs()
        return torch.polar(magnitude, phases[..., :-1]).to(torch.complex64)


class _OverlapAdd:
    """The inverse STFT of a stream of frames: windowed, added up, divided by the windows' sum."""

    def __init__(self) -> None:
        self._window = torch.hann_window(N_FFT)
        self._sum = torch.zeros(0)
        self._weight = torch.zeros(0)
        self._to_drop = N_FFT // 2
        """What the first frame's centring has before the beginning."""

    def add(self, frames: Tensor) -> Samples:
        """Return the samples [sample, channel] that frames [channel, bin, frame] complete."""
        if frames.shape[-1] == 0:
            return np.zeros((0, frames.shape[0]), np.float32)
        channels, _, count = frames.shape
        pieces = torch.fft.irfft(frames.transpose(1, 2), n=N_FFT) * self._window  # [C, frame, tap]
        windows = self._window.square().expand(count, N_FFT)
        total = _overlapped(pieces)
        weight = _overlapped(windows[None])
        kept = N_FFT - HOP_SAMPLES
        if self._sum.numel():
            total[:, :kept] += self._sum
            weight[:, :kept] += self._weight
        done = count * HOP_SAMPLES
        self._sum, self._weight = total[:, done:], weight[:, done:]
        return self._divided(total[:, :done], weight[:, :done])

    def finish(self) -> Samples:
        """Return what is left, [sample, channel]."""
        return self._divided(self._sum, self._weight)

    def _divided(self, total: Tensor, weight: Tensor) -> Samples:
        samples = total / weight.clamp_min(1e-8)
        dropped = min(self._to_drop, samples.shape[1])
        self._to_drop -= dropped
        return samples[:, dropped:].T.contiguous().numpy()


def _overlapped(frames: Tensor) -> Tensor:
    """Add up frames [channel, frame, tap], a hop apart, to [channel, sample]."""
    channels, count, _ = frames.shape
    total = frames.new_zeros(channels, count + _OVERLAP - 1, HOP_SAMPLES)
    parts = frames.reshape(channels, count, _OVERLAP, HOP_SAMPLES)
    for index in range(_OVERLAP):
        total[:, index : index + count] += parts[:, :, index]
    return total.reshape(channels, -1)
