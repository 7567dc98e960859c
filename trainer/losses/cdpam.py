"""CDPAM: a learnt perceptual distance, measured where the optional package `cdpam` is installed.

Only the package's weights are used, and its net is written down here: importing the package needs
modules that it does not ask for and NumPy names that are gone.
"""

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
import torchaudio.functional as AF
from torch import Tensor
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ

RATE_HZ = SAMPLE_RATE_HZ // 2
"""The rate that the net was trained at."""
SEGMENT_SAMPLES = SAMPLE_RATE_HZ * 5 // 2
"""2.5 s at 44.1 kHz, the length of the package's own samples. The distance depends on it."""
MAX_SEGMENTS = 24
"""A minute of the longest segments: on two CPU cores 3 s of work for each second of audio."""

WEIGHTS = Path("CDPAM_trained/scratchJNDdefault_best_model.pth")
"""Where they lie in the package."""

_Weights = Mapping[str, Tensor]

_FULL_SCALE = 32_768.0
_LAYERS = 16
_ACOUSTIC_CHANNELS = 512
_DISTANCES = 4
_CONV = ("weight", "bias")
_NORM = ("running_mean", "running_var", "weight", "bias")


def cdpam_distance(estimate: Tensor, target: Tensor) -> float | None:
    """Return the perceptual distance of two signals [sample] at 44.1 kHz, each in [-1, 1].

    Manocha et al. 2021, CDPAM: Contrastive learning for perceptual audio similarity
    (arXiv:2102.05109). The mean over equal segments of at most 2.5 s; of a recording longer than
    a minute, over segments spread evenly. None where the package is not installed.
    """
    file = _weights_file()
    if file is None:
        return None
    weights = _load(file, target.device)
    count = -(-len(target) // SEGMENT_SAMPLES)
    pairs = list(zip(estimate.tensor_split(count), target.tensor_split(count), strict=True))
    chosen = min(count, MAX_SEGMENTS)
    return sum(_distance(weights, *pairs[i * count // chosen]) for i in range(chosen)) / chosen


def _weights_file() -> Path | None:
    package = importlib.util.find_spec("cdpam")
    if package is None or package.submodule_search_locations is None:
        return None
    return Path(package.submodule_search_locations[0]) / WEIGHTS


@functools.cache
def _load(file: Path, device: torch.device) -> _Weights:
    # An old pickle that weights_only cannot read; it is as trusted as the package it lies in.
    state: dict[str, Tensor] = torch.load(file, map_location=device, weights_only=False)["state"]
    return state


def _distance(weights: _Weights, estimate: Tensor, target: Tensor) -> float:
    made, aim = (_embed(weights, signal) for signal in (estimate, target))
    distance = torch.zeros((), device=made.device)
    for i in range(_DISTANCES):
        weight, bias = (weights[f"model_dist.convs.{i}.0.{part}"] for part in _CONV)
        made, aim = F.linear(made, weight, bias), F.linear(aim, weight, bias)
        if i < _DISTANCES - 1:
            made, aim = F.leaky_relu(made), F.leaky_relu(aim)
        distance += ((made - aim) * weights[f"model_dist.chan_w.{i}"]).abs().sum()
    return distance.item()


def _embed(weights: _Weights, signal: Tensor) -> Tensor:
    """Return the acoustic half of the net's embedding [channel] of a signal [sample]."""
    x = _FULL_SCALE * AF.resample(signal[None, None], SAMPLE_RATE_HZ, RATE_HZ)  # [1, 1, sample]
    for i in range(_LAYERS):
        weight, bias = (weights[f"base_encoder.encoder.{i}.{part}"] for part in _CONV)
        mean, variance, gain, offset = (weights[f"base_encoder.ebatch.{i}.{p}"] for p in _NORM)
        # The package drops every second value after activation: the same as never making it.
        x = F.conv1d(x, weight, bias, stride=2 if i % 4 == 3 else 1, padding=7)
        x = F.leaky_relu(F.batch_norm(x, mean, variance, gain, offset), 0.1)
    return F.normalize(x.mean(2)[0, :_ACOUSTIC_CHANNELS], dim=0)
