"""Validation: the same clips with the same damage for every trial, and do-nothing's score on them.

The metric that trials are judged by is `stft`; the others stand beside it. SI-SDR is reported and
never selected on: shifting destroys the phase, so it says little here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.batches import validation_clips
from trainer.config import METRIC, ValidationConfig
from trainer.damage import cutoff, damage_clips, low_pass_targets
from trainer.data import DataSet
from trainer.losses.spectral import (
    l1_distance,
    log_spectral_distance_db,
    mel_distance,
    si_sdr_db,
    stft_distance,
)

_CLIPS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """Damaged clips and what they should become, each [clip, sample], on the training device."""

    damaged: Tensor
    target: Tensor
    shifts: Tensor
    """Semitones of each clip, [clip]."""

    @classmethod
    def build(
        cls, data: DataSet, config: ValidationConfig, device: torch.device
    ) -> "ValidationSet":
        """Cut the fixed clips out of the held-out recordings and damage them."""
        samples, semitones = validation_clips(data, config)
        clips = torch.from_numpy(np.asarray(samples)).to(device)
        shifts = torch.from_numpy(np.asarray(semitones))
        return cls(
            damaged=damage_clips(clips, shifts),
            target=low_pass_targets(clips, shifts),
            shifts=shifts,
        )

    def score(self, estimate: Tensor) -> dict[str, float]:
        """Return the mean of each metric over estimates [clip, sample] of all clips."""
        shares = [cutoff(n) for n in self.shifts.tolist()]
        limits = torch.tensor(shares, device=estimate.device)
        values: dict[str, list[Tensor]] = {}
        for first in range(0, len(estimate), _CLIPS_AT_ONCE):
            chosen = slice(first, first + _CLIPS_AT_ONCE)
            scores = measure(estimate[chosen], self.target[chosen], limits[chosen])
            for name, value in scores.items():
                values.setdefault(name, []).append(value)
        return {name: torch.cat(parts).mean().item() for name, parts in values.items()}


@torch.no_grad()
def evaluate(restore: Callable[[Tensor], Tensor], validation: ValidationSet) -> dict[str, float]:
    """Return the mean of each metric of what `restore` makes of the damaged clips [clip, sample].

    A net is to be in eval mode.
    """
    parts = [restore(clips).float() for clips in torch.split(validation.damaged, _CLIPS_AT_ONCE)]
    return validation.score(torch.cat(parts))


@torch.no_grad()
def score_do_nothing(validation: ValidationSet) -> dict[str, float]:
    """Return what handing the damaged clips back scores, low-passed as their targets are."""
    return validation.score(low_pass_targets(validation.damaged, validation.shifts))


def measure(estimate: Tensor, target: Tensor, limits: Tensor) -> dict[str, Tensor]:
    """Return every metric of clips [clip, sample] by name, one value a clip, [clip].

    `limits` [clip] is the share of nyquist that the log-spectral distance looks at.
    """
    return {
        METRIC: stft_distance(estimate, target),
        "mel": mel_distance(estimate, target),
        "lsd_db": log_spectral_distance_db(estimate, target, limits),
        "si_sdr_db": si_sdr_db(estimate, target),
        "l1": l1_distance(estimate, target),
    }
