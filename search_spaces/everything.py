"""All of it together: the net, its optimizer, the loss and the clips.

What the log moved one at a time, and what it left alone: a choice that is worse by itself, such as
a larger kernel, may be better beside another.
"""

import functools
from collections.abc import Mapping

from search_spaces.clip_batch import audio_per_step, choose_clips
from search_spaces.depth_channels import known_shape
from search_spaces.kernel_size import choose_kernel
from search_spaces.loss_mix import OTHER_TERMS, choose_mix, known_mix, left_out
from search_spaces.optimizer import choose_optimizer, known_optimizer
from search_spaces.shapes import LIMITS, choose_frames_net, choose_u_net
from search_spaces.space import LOG, SearchSpace, Shared, Trial

_TAPS: Mapping[str, tuple[int, int]] = {
    "waveform": (7, 41),
    "spectrogram": (3, 11),  # squared, as there are two dimensions
    "frames": (3, 15),
}
"""Fewest and most of each family's kernel."""


def space_for(shared: Shared) -> SearchSpace:
    """Return the space that a size can afford, of terms that are there."""
    return SearchSpace(
        suggest=functools.partial(_choose, shared=shared),
        known_points=_known_points(shared),
        left_out=left_out(shared),
    )


def suggest(trial: Trial) -> dict[str, object]:
    """Choose from the space at the log's size with all terms."""
    return space_for(LOG).suggest(trial)


def _choose(trial: Trial, *, shared: Shared) -> dict[str, object]:
    return {
        **_choose_net(trial, shared.size),
        **choose_optimizer(trial, steps=shared.fields["steps"]),
        **choose_mix(trial, size=shared.size, absent=shared.absent_terms),
        **choose_clips(trial, audio_samples=audio_per_step(shared)),
    }


def _choose_net(trial: Trial, size: str) -> dict[str, object]:
    family = trial.suggest_categorical("model.family", tuple(_TAPS))
    least, most = _TAPS[family]
    rest = {
        **choose_kernel(trial, least=least, most=most, prefix=family),
        "model.activation": trial.suggest_categorical("model.activation", ("gelu", "snake")),
        "model.output": trial.suggest_categorical("model.output", ("direct", "difference")),
    }
    if family == "frames":
        return choose_frames_net(trial, limits=LIMITS[size], rest=rest)
    return choose_u_net(trial, family, limits=LIMITS[size], rest=rest)


def _known_points(shared: Shared) -> tuple[Mapping[str, object], ...]:
    """Return the log's best recipe and the demo's, each as far as the size affords it."""
    here = [term for term in OTHER_TERMS if term not in shared.absent_terms]
    muon = known_optimizer("muon_adamw", lr=5e-3, momentum=0.95, adamw_lr=5e-4)
    log = {
        "model.family": "waveform",
        **known_shape([1, 8, 64, 256, 512], [4, 4, 4, 4], [8, 8, 4, 2], LIMITS[shared.size]),
        "waveform.kernel_size": 41,
        "waveform.dilation": 1,
        "model.output": "direct",
        **muon,
        "clip_samples": 49_152,
    }
    demo = {
        "model.family": "frames",
        "frames.stages": 1,
        "frames.blocks_1": 4,
        "frames.parameter_share": 1.0,
        "frames.kernel_size": 7,
        "frames.dilation": 1,
        "model.output": "difference",
        **muon,
        "optimizer.clipping": "norm",
        "optimizer.clip_norm": 1.0,
        "clip_samples": 32_768,
    }
    same = {"model.activation": "gelu", **known_mix(here, "stft")}
    return ({**log, **same}, {**demo, **same})


KNOWN_POINTS = _known_points(LOG)
"""The log's best recipe, output27, and the demo's."""
