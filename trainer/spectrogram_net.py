"""The spectrogram net: a U-Net over the image that an STFT's magnitudes are."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.model_config import SPECTROGRAM_BINS, ModelConfig
from trainer.net import start_at_zero
from trainer.spectral_net import BINS, HOP_SAMPLES, SpectralNet
from trainer.unet import apply_stages, build_stages, edges_of_stages, reach_of_stages


class SpectrogramNet(SpectralNet):
    """The waveform net's stages in two dimensions, time and frequency.

    Its image is one channel of SPECTROGRAM_BINS levels per frame. The one bin above, nyquist's,
    stays out of it, as its number must be even more often than once; it is changed as the bin below
    it is. After the last frame come as many of zeros as make whole patches: as for a convolution's
    own padding, zero is a middling level. Patches are counted from the first frame, so a clip cut
    off at a multiple of `grid_samples` has the same ones.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, reach_frames=reach_of_stages(config))
        self.patch_frames = math.prod(config.factors)
        self.grid_samples = self.patch_frames * HOP_SAMPLES
        self.stages = build_stages(config, dimensions=2, out=2)
        if self.changes_input:
            start_at_zero(self.edges()[1])

    def edges(self) -> tuple[nn.Linear, nn.Linear]:
        return edges_of_stages(self.stages)

    def judge(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        frames = levels.shape[1]
        patches = (frames + self.patch_frames - 1) // self.patch_frames
        image = levels[..., :SPECTROGRAM_BINS].unsqueeze(-1)  # [B, frame, bin, 1]
        image = F.pad(image, (0, 0, 0, 0, 0, patches * self.patch_frames - frames))
        change = apply_stages(self.stages, image)[:, :frames]  # [B, frame, bin, 2]
        nyquist = change[:, :, -1:].expand(-1, -1, BINS - SPECTROGRAM_BINS, -1)
        log_gain, turn = torch.cat((change, nyquist), dim=2).unbind(-1)
        return log_gain, turn
