"""Shapes of nets that keep to limits by construction: factors, blocks and relative widths are
chosen, and the net is then made as wide as the limits let it be.
"""

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from search_spaces.budget import parameters
from search_spaces.space import Trial

Fields = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the largest net may have and cost."""

    parameters: int
    multiply_adds: float
    """Of the forward pass, per sample of audio."""
    activations: float
    """Outputs of residual blocks, per sample of audio: memory goes with them."""
    blocks: int
    """In a stage, on one way."""
    width_step: int
    """Widths are multiples of it, and no less."""


LIMITS: Mapping[str, Limits] = {
    # output27's net has 22.9 M parameters, 59 thousand multiply-adds and 16 activations, of which
    # the latter took 3.4 GB: the largest here takes some 10 GB of 24.
    "log": Limits(
        parameters=24_000_000, multiply_adds=240e3, activations=48, blocks=6, width_step=8
    ),
    # The demo's frames net has 1.08 M, 4.2 thousand and 1.25, and takes 0.17 s a step on one core.
    "demo": Limits(parameters=1_100_000, multiply_adds=9e3, activations=6, blocks=2, width_step=4),
}

LEAST_SHARE = 1 / 16
"""Of the parameters allowed: the log went to a quarter (output30, "worse")."""

_WIDEST = 4096


@dataclass(frozen=True, kw_only=True)
class UNetKind:
    """How a family of U-Nets may be cut into stages."""

    stages: tuple[int, int]
    """Fewest and most."""
    first_octaves: int
    """The first factor is at least two to this power: work before it is the dearest."""
    octaves: int
    """The product of all factors is at most two to this power."""
    positions: int
    """What the net sees per sample of audio: itself, or two bins of a spectrogram."""
    dimensions: int
    out: int
    """Channels that the outermost stage gives."""


U_NETS: Mapping[str, UNetKind] = {
    # 512: every clip length of the log is a multiple of it.
    "waveform": UNetKind(
        stages=(3, 6), first_octaves=2, octaves=9, positions=1, dimensions=1, out=1
    ),
    # Patches of at most 64 bins and 64 frames (0.37 s); a clip of the log has 193 frames.
    "spectrogram": UNetKind(
        stages=(2, 4), first_octaves=2, octaves=6, positions=2, dimensions=2, out=2
    ),
}
_MOST_OCTAVES_A_STAGE = 3  # the log's largest factor is 8
_FRAMES_PER_SAMPLE = 1 / 256
_BINS = 513


def choose_u_net(
    trial: Trial, family: str, *, limits: Limits, rest: Mapping[str, object]
) -> Fields:
    """Choose stages, factors, blocks and widths; `rest` is what else decides a net's size.

    Widths go with a power of the down-sampling: with 1, as in all of the log's nets, each depth
    holds as many values as the audio has samples.
    """
    kind = U_NETS[family]
    stages = trial.suggest_int(f"{family}.stages", *kind.stages)
    octaves = _choose_octaves(trial, family, stages, kind)
    blocks = [
        trial.suggest_int(f"{family}.blocks_{depth}", 1, limits.blocks)
        for depth in range(1, stages + 1)
    ]
    growth = trial.suggest_float(f"{family}.width_growth", 0.5, 1.2)
    down = [sum(octaves[: depth + 1]) for depth in range(stages)]
    relative = [2.0 ** (growth * (octave - down[-1])) for octave in down]
    shape: Fields = {
        "model.family": family,
        "model.blocks": blocks,
        "model.factors": [2**octave for octave in octaves],
        **rest,
    }
    return _widen(trial, shape, [1], relative, limits)


def choose_frames_net(trial: Trial, *, limits: Limits, rest: Mapping[str, object]) -> Fields:
    """Choose one stage or two over frames, their blocks, and widths that do not fall."""
    stages = trial.suggest_int("frames.stages", 1, 2)
    most = 2 * limits.blocks  # a U-Net has them on both ways
    blocks = [
        trial.suggest_int(f"frames.blocks_{depth}", 1, most) for depth in range(1, stages + 1)
    ]
    relative = [1.0]
    if stages == 2:
        relative = [trial.suggest_float("frames.first_width", 0.25, 1.0), 1.0]
    shape: Fields = {"model.family": "frames", "model.blocks": blocks, "model.factors": [], **rest}
    return _widen(trial, shape, [], relative, limits)


def fullness(fields: Mapping[str, object], *, limits: Limits, most_parameters: int) -> float:
    """Return how much of the limit that a net comes nearest to it uses; above 1 it breaks it."""
    return max(
        parameters(fields) / most_parameters,
        multiply_adds(fields) / limits.multiply_adds,
        activations(fields) / limits.activations,
    )


def multiply_adds(fields: Mapping[str, object]) -> float:
    """Return those of matrix products and convolutions in the forward pass, per sample of audio."""
    taps = cast("int", fields["model.kernel_size"])
    if fields["model.family"] == "frames":
        return _frames_multiply_adds(fields, taps)
    kind = U_NETS[cast("str", fields["model.family"])]
    total, out = 0.0, kind.out
    for outer, width, blocks, factor, positions in _stages(fields):
        patch = factor**kind.dimensions
        block = 8 * width**2 + width * taps**kind.dimensions
        total += positions * (width * patch * (outer + out) + 2 * width**2 + 2 * blocks * block)
        out = width
    return total


def activations(fields: Mapping[str, object]) -> float:
    """Return the outputs of residual blocks on one way through the net, per sample of audio."""
    if fields["model.family"] == "frames":
        return _FRAMES_PER_SAMPLE * sum(w * b / 2 for w, b in _frames_stages(fields))
    return sum(width * blocks * positions for _, width, blocks, _, positions in _stages(fields))


def _choose_octaves(trial: Trial, family: str, stages: int, kind: UNetKind) -> list[int]:
    """Choose each factor's power of two, leaving at least one for each stage to come."""
    octaves: list[int] = []
    for depth in range(1, stages + 1):
        left = kind.octaves - sum(octaves) - (stages - depth)
        least = kind.first_octaves if depth == 1 else 1
        most = min(_MOST_OCTAVES_A_STAGE, left)
        octaves.append(trial.suggest_int(f"{family}.octaves_{depth}", least, most))
    return octaves


def _widen(
    trial: Trial, shape: Fields, before: list[int], relative: Sequence[float], limits: Limits
) -> Fields:
    """Return the shape with the largest widths in proportion that keep to the limits and to a
    chosen share of the parameters."""
    family = cast("str", shape["model.family"])
    share = trial.suggest_float(f"{family}.parameter_share", LEAST_SHARE, 1.0, log=True)
    most = round(share * limits.parameters)

    def fields_of(width: int) -> Fields:
        widths = (_round(width * part, limits.width_step) for part in relative)
        return {**shape, "model.channels": [*before, *widths]}

    def use(width: int) -> float:
        return fullness(fields_of(width), limits=limits, most_parameters=most)

    return fields_of(_largest_within(use, range(limits.width_step, _WIDEST, limits.width_step)))


def _largest_within(use: Callable[[int], float], widths: Sequence[int]) -> int:
    """Return the last of rising widths whose use, which rises with them, is at most 1."""
    fitting = bisect.bisect_right(widths, 1.0, key=use)
    assert fitting > 0, "the narrowest net breaks a limit"
    return widths[fitting - 1]


def _round(width: float, step: int) -> int:
    return max(step, step * round(width / step))


def _stages(fields: Mapping[str, object]) -> Iterator[tuple[int, int, int, int, float]]:
    """Yield the width around a stage, its own, its blocks, its factor, and its positions per sample
    of audio."""
    kind = U_NETS[cast("str", fields["model.family"])]
    channels = cast("Sequence[int]", fields["model.channels"])
    blocks = cast("Sequence[int]", fields["model.blocks"])
    factors = cast("Sequence[int]", fields["model.factors"])
    for depth, factor in enumerate(factors):
        stride = math.prod(factors[: depth + 1])
        positions = kind.positions / stride**kind.dimensions
        yield channels[depth], channels[depth + 1], blocks[depth], factor, positions


def _frames_stages(fields: Mapping[str, object]) -> list[tuple[int, int]]:
    widths = cast("Sequence[int]", fields["model.channels"])
    return list(zip(widths, cast("Sequence[int]", fields["model.blocks"]), strict=True))


def _frames_multiply_adds(fields: Mapping[str, object], taps: int) -> float:
    total, before = 0, _BINS
    for width, blocks in _frames_stages(fields):
        total += before * width + blocks * (8 * width**2 + width * taps)
        before = width
    return _FRAMES_PER_SAMPLE * (total + before * 2 * _BINS)
