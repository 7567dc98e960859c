"""The nets by their family."""

from collections.abc import Callable, Mapping

from torch import nn

from trainer.frames_net import FramesNet
from trainer.model_config import Family, ModelConfig
from trainer.net import Net
from trainer.spectrogram_net import SpectrogramNet
from trainer.waveform_net import WaveformNet

_FAMILIES: Mapping[Family, Callable[[ModelConfig], Net]] = {
    "waveform": WaveformNet,
    "spectrogram": SpectrogramNet,
    "frames": FramesNet,
}


def build_model(config: ModelConfig) -> Net:
    """Build the configured net: clips [batch, sample] to clips of the same shape."""
    return _FAMILIES[config.family](config)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
