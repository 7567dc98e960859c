"""The fields of a net: what each means, its range and its only default."""

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.fields import require

Family = typing.Literal["waveform", "spectrogram", "frames"]

SPECTROGRAM_BINS = 512
"""Frequencies of an image that the family `spectrogram` looks at: the factors must divide it."""

_SHAPES: Mapping[str, Mapping[str, object]] = {
    "waveform": {  # output27's, the best of the research log
        "channels": (1, 8, 64, 256, 512),
        "blocks": (4, 4, 4, 4),
        "factors": (8, 8, 4, 2),
        "kernel_size": 41,
    },
    "spectrogram": {
        "channels": (1, 32, 64, 128, 256),
        "blocks": (2, 2, 2, 2),
        "factors": (4, 2, 2, 2),
        "kernel_size": 7,
    },
    "frames": {"channels": (160,), "blocks": (4,), "factors": (), "kernel_size": 7},
}
"""What a family has where a field is not given."""

_MOST_CHANNELS, _MOST_BLOCKS, _MOST_TAPS, _LARGEST_FACTOR = 16_384, 256, 4095, 4096


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The net. Where a shape is not given (empty, or 0) it is the family's own."""

    family: Family = "waveform"
    """`waveform`: U-Net of 1-D ConvNeXt stages. `spectrogram`: the same in two dimensions, over the
    magnitudes of an STFT. `frames`: 1-D ConvNeXt blocks over STFT frames, without down-sampling."""
    channels: tuple[int, ...] = ()
    """Both U-Nets: 1 (the waveform, the magnitude), then the width of each stage. Frames: the width
    of each stage."""
    blocks: tuple[int, ...] = ()
    """Residual blocks per stage (in a U-Net on the way down, and as many on the way up)."""
    factors: tuple[int, ...] = ()
    """U-Nets: down-sampling into each stage, in each dimension. Frames: none."""
    kernel_size: int = 0
    """Taps of each depthwise convolution, in each dimension; odd."""
    dilation: int = 1
    """Samples (bins, frames) of a stage from one tap to the next."""
    activation: typing.Literal["gelu", "snake"] = "gelu"
    """Within blocks. `snake`: x + sin(a x)**2 / a, with a trained `a` per channel, as BigVGAN's."""
    output: typing.Literal["direct", "difference"] = "direct"
    """`difference` changes its input, starting from nothing: the net starts as the identity."""

    def __post_init__(self) -> None:
        for name, value in _SHAPES[self.family].items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        self._check_ranges()
        if self.family == "frames":
            self._check_frames()
        else:
            self._check_unet()

    @property
    def length_multiple(self) -> int:
        """Return the number that a clip's samples must be a multiple of."""
        return math.prod(self.factors) if self.family == "waveform" else 1

    def _check_ranges(self) -> None:
        for name, values, most in (
            ("channels", self.channels, _MOST_CHANNELS),
            ("blocks", self.blocks, _MOST_BLOCKS),
            ("factors", self.factors, _LARGEST_FACTOR),
        ):
            ok = all(1 <= value <= most for value in values)
            require(ok, f"model.{name}", values, f"whole numbers from 1 to {most}")
        odd = 1 <= self.kernel_size <= _MOST_TAPS and self.kernel_size % 2 == 1
        require(odd, "model.kernel_size", self.kernel_size, f"odd and from 1 to {_MOST_TAPS}")
        near = 1 <= self.dilation <= _MOST_TAPS
        require(near, "model.dilation", self.dilation, f"from 1 to {_MOST_TAPS}")

    def _check_unet(self) -> None:
        stages = len(self.channels) - 1
        require(self.channels[0] == 1, "model.channels", self.channels, "1 first: what comes in")
        require(stages >= 1, "model.channels", self.channels, "1 and the width of each stage")
        for name, values in (("blocks", self.blocks), ("factors", self.factors)):
            allowed = f"{stages} long, one for each of model.channels after the first"
            require(len(values) == stages, f"model.{name}", values, allowed)
        if self.family == "spectrogram":
            divides = SPECTROGRAM_BINS % math.prod(self.factors) == 0
            allowed = f"numbers whose product divides {SPECTROGRAM_BINS}, the bins of a spectrum"
            require(divides, "model.factors", self.factors, allowed)

    def _check_frames(self) -> None:
        allowed = f"{len(self.channels)} long, one for each of model.channels"
        require(len(self.blocks) == len(self.channels), "model.blocks", self.blocks, allowed)
        require(self.factors == (), "model.factors", self.factors, "[] with family frames")
