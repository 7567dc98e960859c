"""The two sizes a sweep comes in, as the fields in which each differs from the defaults, and the
shapes that the families have there."""

from collections.abc import Mapping

_DEMO_SHAPES: Mapping[str, Mapping[str, object]] = {
    # The U-Nets are the log's, an eighth as wide with half the blocks.
    "waveform": {"model.channels": (1, 4, 8, 32, 64), "model.blocks": (2, 2, 2, 2)},
    "spectrogram": {"model.channels": (1, 4, 8, 16, 32), "model.blocks": (1, 1, 1, 1)},
}
"""So that a step of each family takes two CPU cores about as long; `frames` is small as it is."""

SIZES: Mapping[str, Mapping[str, object]] = {
    # The log's waveform U-Net and its 10,000 steps: for a GPU. The defaults are just that.
    "log": {},
    # Minutes on two CPU cores: a frames net that starts as the identity beats do-nothing
    # within 50 small steps, where the waveform U-Net of that size does not in a thousand.
    "demo": {
        "data.clip_samples": 32_768,
        "data.batch_size": 4,
        "model.family": "frames",
        "model.output": "difference",
        "optimizer.clip_norm": 1.0,
        "validation.clips": 16,
        "steps": 200,
        "report_every": 25,
    },
}

_SHAPES: Mapping[str, Mapping[str, Mapping[str, object]]] = {"log": {}, "demo": _DEMO_SHAPES}
"""Of each size, the shapes that are not the family's own."""

_REPORTS = 8
"""At least so many validations in a trial, however short: ASHA judges at them."""


def fields_of_size(size: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return a size's fields with the given ones laid over them.

    Where those choose another family, the shape is this family's at the size.
    """
    family = given.get("model.family")
    shape = _SHAPES[size].get(family, {}) if isinstance(family, str) else {}
    return {**SIZES[size], **shape, **given}


def length_fields(steps: int, *, report_every: int) -> dict[str, object]:
    """Return the fields of a trial of so many steps that reports as usual, or more often."""
    return {"steps": steps, "report_every": max(1, min(report_every, steps // _REPORTS))}


def default_size(*, has_gpu: bool) -> tuple[str, str]:
    """Return the size to use where none is asked for, and the reason in words."""
    if has_gpu:
        return "log", "a GPU is there"
    return "demo", "no GPU is there; --size log trains the log's net all the same, slowly"
