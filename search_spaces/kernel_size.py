"""Taps of the depthwise convolutions and the distance between them, with the rate to go with them.

The log took 41 for 7 once, with one rate (outputs 23 and 24: "slightly worse"), and named
HiFi-GAN's 11 taps 11 apart without trying them.
"""

from collections.abc import Mapping

from search_spaces.space import Trial

_WIDEST = 121
"""Places from the first tap to the last, both counted. The log's deepest stage has 96 places in a
clip: what lies further apart meets nothing but padding. 11 taps 11 apart span 111."""
_MOST_APART = 11


def suggest(trial: Trial) -> dict[str, object]:
    """Choose taps from 7 (ConvNeXt's) to 41 (the log's), their distance, and the first rate."""
    lr = trial.suggest_float("optimizer.lr", 1e-3, 2e-2, log=True)  # the log: 1e-3 to 1e-2
    return {**choose_kernel(trial, least=7, most=41), "optimizer.lr": lr}


def choose_kernel(trial: Trial, *, least: int, most: int, prefix: str = "model") -> dict[str, int]:
    """Choose an odd number of taps and how far apart they are, so that they span at most 121."""
    taps = trial.suggest_int(f"{prefix}.kernel_size", least, most, step=2)
    apart = min(_MOST_APART, (_WIDEST - 1) // (taps - 1))
    dilation = trial.suggest_int(f"{prefix}.dilation", 1, apart)
    return {"model.kernel_size": taps, "model.dilation": dilation}


KNOWN_POINTS: tuple[Mapping[str, object], ...] = tuple(
    {"model.kernel_size": taps, "model.dilation": apart, "optimizer.lr": 5e-3}
    for taps, apart in (
        (41, 1),  # output27, as are the rates
        (7, 1),  # output23: ConvNeXt's own
        (11, 11),  # HiFi-GAN's
    )
)
"""The log's, its best first."""
