"""Few long clips or many short ones, at equal audio per step.

The log moved both, mostly for want of memory: from 65024 samples down to 16384 and back to 49152,
from 32 clips to 16 and back.
"""

import functools
import math
from collections.abc import Mapping

from search_spaces.space import LOG, SearchSpace, Shared, Trial

GRID_SAMPLES = 512
"""Clips are multiples of it: the product of the log's factors, and a multiple of smaller ones."""
_SHORTEST_SAMPLES, _LONGEST_SAMPLES = 8192, 88_064
"""0.19 s, where a 2048-sample window still fits four times, and 2.0 s."""
_TOLERANCE = 0.02


def space_for(shared: Shared) -> SearchSpace:
    """Return the space for as much audio per step as all trials have."""
    choose = functools.partial(choose_clips, audio_samples=audio_per_step(shared))
    return SearchSpace(suggest=choose, known_points=KNOWN_POINTS)


def suggest(trial: Trial) -> dict[str, object]:
    """Choose from the space at the log's size."""
    return space_for(LOG).suggest(trial)


def audio_per_step(shared: Shared) -> int:
    """Return how many samples a step looks at."""
    batch, clip = shared.fields["data.batch_size"], shared.fields["data.clip_samples"]
    assert isinstance(batch, int) and isinstance(clip, int)
    return batch * clip


def choose_clips(trial: Trial, *, audio_samples: int) -> dict[str, object]:
    """Choose how long clips are, and take as many as make up that much audio within 2%.

    Where whole clips of the length do not, the length gives way to their number.
    """
    samples = trial.suggest_int(
        "clip_samples", _SHORTEST_SAMPLES, _LONGEST_SAMPLES, step=GRID_SAMPLES
    )
    batch = max(math.ceil(audio_samples / _LONGEST_SAMPLES), round(audio_samples / samples))
    if abs(batch * samples / audio_samples - 1) > _TOLERANCE:
        samples = GRID_SAMPLES * round(audio_samples / batch / GRID_SAMPLES)
    return {"data.clip_samples": samples, "data.batch_size": batch}


KNOWN_POINTS: tuple[Mapping[str, object], ...] = tuple(
    {"clip_samples": samples}
    for samples in (
        49_152,  # output37
        16_384,  # output32: "reducing to … 16384 samples makes it fit"
        65_024,  # output17
        32_256,  # output19
    )
)
"""The log's lengths, its latest first."""
