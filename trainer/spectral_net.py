"""What both spectral nets share: from a clip to the levels of its spectrum, and back again."""

import abc

import torch
from torch import Tensor

from trainer.model_config import ModelConfig
from trainer.net import Net

N_FFT = 1024
HOP_SAMPLES = 256
BINS = N_FFT // 2 + 1
MAGNITUDE_FLOOR = 1e-5
LOG_GAIN_LIMIT = 6.0
"""A magnitude is changed by at most e**6, about 52 dB."""

_MEAN_LOG_MAGNITUDE, _LOG_MAGNITUDE_SCALE = -3.0, 3.0


class SpectralNet(Net):
    """Gives each bin and frame of a clip's STFT a log-gain and a turn of phase.

    With output `difference` they apply to the input's spectrum; with `direct`, which takes no more
    than the phase from its input, the gain is the magnitude itself. Clips must be more than
    N_FFT / 2 samples long. Who inherits says by `judge` what to change.
    """

    length_multiple = 1

    def __init__(self, config: ModelConfig, *, reach_frames: int) -> None:
        """Set up the STFT for a `judge` that looks so many frames to each side."""
        super().__init__()
        self.reach_samples = N_FFT + reach_frames * HOP_SAMPLES
        self.changes_input = config.output == "difference"
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    @abc.abstractmethod
    def judge(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-gain, not limited yet, and the turn of phase in radians for levels of
        about unit scale, all [batch, frame, bin]."""

    def forward(self, clips: Tensor) -> Tensor:
        spectrum = torch.stft(clips, N_FFT, HOP_SAMPLES, window=self.window, return_complex=True)
        log_gain, turn = self.decide(spectrum.abs().clamp_min(MAGNITUDE_FLOOR))
        if not self.changes_input:
            spectrum = spectrum / spectrum.abs().clamp_min(MAGNITUDE_FLOOR)
        restored = spectrum * torch.polar(log_gain.exp(), turn)
        return torch.istft(restored, N_FFT, HOP_SAMPLES, window=self.window, length=clips.shape[-1])

    def decide(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-gain and the turn of phase for magnitudes, all [batch, bin, frame]."""
        levels = (magnitude.log().transpose(1, 2) - _MEAN_LOG_MAGNITUDE) / _LOG_MAGNITUDE_SCALE
        log_gain, turn = (change.float().transpose(1, 2) for change in self.judge(levels))
        return LOG_GAIN_LIMIT * torch.tanh(log_gain / LOG_GAIN_LIMIT), turn
