"""What a net of some fields costs and needs, in closed form, so that a space can keep to a budget.

Fields are the trainer's dotted ones, resolved: `model.family`, `model.channels`, `model.blocks`,
`model.factors`, `model.kernel_size`, `model.dilation` and `model.activation` must all be there.
The nets themselves are not: a test holds each formula against them.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

_SAMPLE_RATE_HZ = 44_100
_N_FFT, _HOP_SAMPLES = 1024, 256
_BINS = _N_FFT // 2 + 1
_DIMENSIONS = {"waveform": 1, "spectrogram": 2, "frames": 1}
_CHANNELS_OUT = {"waveform": 1, "spectrogram": 2}


def parameters(fields: Mapping[str, object]) -> int:
    """Return the number of trained values."""
    shape = _Shape.of(fields)
    return _frames_parameters(shape) if shape.family == "frames" else _unet_parameters(shape)


def length_multiple(fields: Mapping[str, object]) -> int:
    """Return the number that a clip's samples must be a multiple of."""
    shape = _Shape.of(fields)
    return math.prod(shape.factors) if shape.family == "waveform" else 1


def receptive_field_ms(fields: Mapping[str, object]) -> float:
    """Return how much of the input, at most, one output sample depends on."""
    shape = _Shape.of(fields)
    reach = shape.taps_reach * sum(shape.blocks) if shape.family == "frames" else _unet_reach(shape)
    if shape.family != "waveform":
        reach = _N_FFT + reach * _HOP_SAMPLES
    return (2 * reach + 1) / _SAMPLE_RATE_HZ * 1000


def factor_schedules(stages: int, *, divides: int, factors: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all ways to down-sample into so many stages, in the order of the factors to choose
    from: those whose product divides a number (of samples in a clip, of bins in a spectrum)."""
    schedules = itertools.product(factors, repeat=stages)
    return [schedule for schedule in schedules if divides % math.prod(schedule) == 0]


def widest(
    fields_of: Callable[[int], Mapping[str, object]], *, widths: Sequence[int], most: int
) -> int:
    """Return the last of rising widths whose net has at most so many parameters.

    `fields_of` gives the net's fields for a width; the net must grow with it. Raises ValueError
    when even the first is too large.
    """
    fitting = bisect.bisect_right(widths, most, key=lambda width: parameters(fields_of(width)))
    if fitting == 0:
        least = parameters(fields_of(widths[0]))
        raise ValueError(f"most={most}; must be >= {least}, the parameters of width {widths[0]}")
    return widths[fitting - 1]


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The fields of a net that decide its size."""

    family: str
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    factors: tuple[int, ...]
    kernel_size: int
    dilation: int
    has_snake: bool

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> "_Shape":
        def numbers(name: str) -> tuple[int, ...]:
            return tuple(cast("Sequence[int]", fields[f"model.{name}"]))

        return cls(
            family=cast("str", fields["model.family"]),
            channels=numbers("channels"),
            blocks=numbers("blocks"),
            factors=numbers("factors"),
            kernel_size=cast("int", fields["model.kernel_size"]),
            dilation=cast("int", fields["model.dilation"]),
            has_snake=fields["model.activation"] == "snake",
        )

    @property
    def dimensions(self) -> int:
        return _DIMENSIONS[self.family]

    @property
    def taps_reach(self) -> int:
        """Return how far to each side a block looks, in its own steps."""
        return self.kernel_size // 2 * self.dilation

    def stages(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield the width around a stage of a U-Net, its own, its blocks and its factor."""
        around = itertools.pairwise(self.channels)
        for (outer, width), blocks, factor in zip(around, self.blocks, self.factors, strict=True):
            yield outer, width, blocks, factor

    def block_parameters(self, width: int) -> int:
        hidden = 4 * width
        depthwise: int = width * self.kernel_size**self.dimensions + width
        activation = hidden if self.has_snake else 0
        return depthwise + 2 * width + _linear(width, hidden) + activation + _linear(hidden, width)


def _linear(inner: int, outer: int) -> int:
    return inner * outer + outer


def _unet_parameters(shape: _Shape) -> int:
    total, out = 0, _CHANNELS_OUT[shape.family]
    for outer, width, blocks, factor in shape.stages():
        patch = factor**shape.dimensions
        total += _linear(outer * patch, width) + _linear(2 * width, width)
        total += _linear(width, out * patch) + 2 * blocks * shape.block_parameters(width)
        out = width
    return total


def _frames_parameters(shape: _Shape) -> int:
    total, before = 0, _BINS
    for width, blocks in zip(shape.channels, shape.blocks, strict=True):
        total += _linear(before, width) + 2 * width + blocks * shape.block_parameters(width)
        before = width
    return total + _linear(before, 2 * _BINS)


def _unet_reach(shape: _Shape) -> int:
    """Return how far the farthest place is that one depends on, in steps of what comes in."""
    stride, reach = 1, 0
    for *_, blocks, factor in shape.stages():
        stride *= factor
        reach += 2 * blocks * shape.taps_reach * stride
    return reach + stride - 1
