"""A distance between clips as the frozen encoder of a neural codec sees them.

This is the project's own (the log's outputs 32 to 37): what DAC and EnCodec match in their own
training are features of a discriminator, not of the encoder.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from trainer.loss_config import CodecFeatures

_FLOOR = 1e-5
"""The least that a distance is relative to: features of sound lie far above it, and those of
silence, where a net has no biases, below."""


class Stage(nn.Module):
    """One block of an encoder: residual units, then down-sampling."""

    def __init__(self, units: Sequence[nn.Module], down: nn.Module) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.down = down


class StagedEncoder(nn.Module):
    """The first blocks of a codec's encoder, frozen, as a source of features.

    `units` gives what each residual unit makes, `blocks` what each block makes.
    """

    def __init__(
        self, stem: nn.Module, stages: Sequence[Stage], *, features: CodecFeatures
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self._after_units = features == "units"
        self.requires_grad_(False)

    def forward(self, signals: Tensor) -> Iterator[Tensor]:
        """Yield the features [clip, channel, frame] of signals [clip, channel, sample]."""
        x = self.stem(signals)
        for number, stage in enumerate(self.stages, start=1):
            assert isinstance(stage, Stage)
            for unit in stage.units:
                x = unit(x)
                if self._after_units:
                    yield x
            if self._after_units and number == len(self.stages):
                return  # what comes after the last unit is not looked at
            x = stage.down(x)
            if not self._after_units:
                yield x


def relative_l1(made: Iterable[Tensor], aim: Iterable[Tensor]) -> Tensor:
    """Return, meaned over layers, mean |made - aim| / mean |aim| of each clip, [clip].

    The features of each layer are [clip, channel, frame].
    """
    distances = [
        (ours - theirs).abs().mean((1, 2)) / theirs.abs().mean((1, 2)).clamp_min(_FLOOR)
        for ours, theirs in zip(made, aim, strict=True)
    ]
    return torch.stack(distances).mean(0)
