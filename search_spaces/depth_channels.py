"""How deep and how wide the waveform net is, and where its blocks are, under a parameter budget.

The log changed one of these at a time and compared nets of 6, 22 and 23 million parameters: a
smaller net that was worse (output30) had fewer channels and less down-sampling at once.
"""

import functools
from collections.abc import Mapping, Sequence

from search_spaces.budget import parameters
from search_spaces.shapes import LIMITS, Limits, choose_u_net
from search_spaces.space import LOG, SearchSpace, Shared, Trial

REST: Mapping[str, object] = {
    "model.kernel_size": 41,
    "model.dilation": 1,
    "model.activation": "gelu",
}
"""Output27's."""


def space_for(shared: Shared) -> SearchSpace:
    """Return the space of nets that a size can afford."""
    limits = LIMITS[shared.size]
    choose = functools.partial(choose_u_net, family="waveform", limits=limits, rest=REST)
    return SearchSpace(suggest=choose, known_points=_known_points(limits))


def suggest(trial: Trial) -> dict[str, object]:
    """Choose from the space at the log's size."""
    return space_for(LOG).suggest(trial)


def known_shape(
    channels: Sequence[int], blocks: Sequence[int], factors: Sequence[int], limits: Limits
) -> dict[str, object]:
    """Return the parameters of a net of the log, or with tighter limits, of one in proportion.

    In all of the log's nets the channels grow by the factors: the growth is 1.
    """
    shape = {
        "model.family": "waveform",
        "model.channels": channels,
        "model.blocks": blocks,
        "model.factors": factors,
    }
    share = parameters({**shape, **REST}) / LIMITS["log"].parameters
    halved = limits.blocks < LIMITS["log"].blocks
    point: dict[str, object] = {"waveform.stages": len(factors)}
    for depth, (factor, count) in enumerate(zip(factors, blocks, strict=True), start=1):
        point[f"waveform.octaves_{depth}"] = factor.bit_length() - 1
        point[f"waveform.blocks_{depth}"] = (count + 1) // 2 if halved else count
    return {**point, "waveform.width_growth": 1.0, "waveform.parameter_share": share}


def _known_points(limits: Limits) -> tuple[Mapping[str, object], ...]:
    return tuple(
        known_shape(channels, blocks, factors, limits)
        for channels, blocks, factors in (
            ([1, 8, 64, 256, 512], [4, 4, 4, 4], [8, 8, 4, 2]),  # output27
            ([1, 8, 32, 128, 256, 512], [4, 4, 4, 4, 4], [8, 4, 4, 2, 2]),  # output29
            ([1, 8, 64, 128, 256], [4, 4, 4, 4], [8, 8, 2, 2]),  # output30
            ([1, 8, 64, 256, 512], [2, 2, 3, 4], [8, 8, 4, 2]),  # output24
        )
    )


KNOWN_POINTS = _known_points(LIMITS["log"])
"""The log's nets, its best first."""
