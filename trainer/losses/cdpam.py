"""The term and the metric `cdpam`: a learnt perceptual distance, at its own rate and scale.

Manocha et al. 2021, CDPAM: Contrastive learning for perceptual audio similarity (arXiv:2102.05109).
Of the package `cdpam` only the weights are used, and its net is written down here: importing the
package needs modules that it does not ask for and NumPy names that are gone.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
import torchaudio.functional as AF
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ
from trainer.losses.foreign import NetAbsent, find_cdpam
from trainer.losses.frozen import FrozenConv1d, check_shapes
from trainer.losses.old_pickle import load_tensors
from trainer.losses.shapes import check_pair
from trainer.unreadable import UNREADABLE

RATE_HZ = SAMPLE_RATE_HZ // 2
"""The rate that the net was trained at."""
SEGMENT_SAMPLES = SAMPLE_RATE_HZ * 5 // 2
"""2.5 s at 44.1 kHz, the length of the package's own samples. The distance depends on it."""
MAX_SEGMENTS = 24
"""A minute of the longest segments: on two CPU cores 3 s of work for each second of audio."""

_Weights = Mapping[str, Tensor]
_AFFINE = ("weight", "bias")
_NORM = ("running_mean", "running_var", *_AFFINE)

_FULL_SCALE = 32_768.0
_LAYERS, _TAPS, _FIRST_CHANNELS, _LAYERS_A_STRIDE = 16, 15, 64, 4
_ACOUSTIC_CHANNELS = 512
_COMPARED = (512, 256, 64, 16, 4)
"""Channels of the embedding, and of each layer in which two embeddings are compared."""


class CdpamDistance(nn.Module):
    """The perceptual distance of clips in [-1, 1] at 44.1 kHz: two [clip, sample] to [clip].

    The net is frozen, its batch norms as they are in use folded into the convolutions before them.
    """

    def __init__(self, weights: _Weights | None = None) -> None:
        """Set up the net from the package's weights, else with random ones."""
        super().__init__()
        state = _draw_weights() if weights is None else weights
        self._layers = nn.ModuleList(_fold_layer(state, i) for i in range(_LAYERS))
        self._linears = nn.ModuleList()
        self._importances = nn.ParameterList()
        for i, (before, after) in enumerate(zip(_COMPARED, _COMPARED[1:], strict=False)):
            linear = nn.Linear(before, after)
            linear.load_state_dict({p: state[f"model_dist.convs.{i}.0.{p}"] for p in _AFFINE})
            self._linears.append(linear)
            self._importances.append(nn.Parameter(state[f"model_dist.chan_w.{i}"]))
        self.requires_grad_(False)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each clip; the target's embedding has no gradient."""
        check_pair(estimate, target)
        made, aim = self._embed(estimate), self._embed(target.detach())
        distance = torch.zeros_like(made[:, 0])
        last = len(self._linears) - 1
        for i, (linear, importance) in enumerate(
            zip(self._linears, self._importances, strict=True)
        ):
            made, aim = linear(made), linear(aim)
            if i < last:
                made, aim = F.leaky_relu(made), F.leaky_relu(aim)
            distance = distance + ((made - aim) * importance).abs().sum(1)
        return distance

    def _embed(self, clips: Tensor) -> Tensor:
        """Return the acoustic half of the net's embedding, [clip, channel]."""
        x = _FULL_SCALE * AF.resample(clips, SAMPLE_RATE_HZ, RATE_HZ)[:, None]  # [B, 1, sample]
        for layer in self._layers:
            x = F.leaky_relu(layer(x), 0.1, inplace=True)
        return F.normalize(x.mean(2)[:, :_ACOUSTIC_CHANNELS], dim=1)


def cdpam_distance(
    estimate: Tensor, target: Tensor, *, segment_samples: int = SEGMENT_SAMPLES
) -> float | None:
    """Return the perceptual distance of two signals [sample] at 44.1 kHz, each in [-1, 1].

    The mean over equal segments of at most so many samples; of a recording of more than 24, over
    segments spread evenly. None where the package is not installed.
    """
    try:
        file = find_cdpam()
    except NetAbsent:
        return None
    net = load_cdpam(file, target.device)
    count = -(-len(target) // segment_samples)
    pairs = list(zip(estimate.tensor_split(count), target.tensor_split(count), strict=True))
    chosen = min(count, MAX_SEGMENTS)
    distances = [
        net(*(signal[None] for signal in pairs[i * count // chosen])) for i in range(chosen)
    ]
    return float(torch.cat(distances).mean())


@functools.cache
def load_cdpam(file: Path, device: torch.device) -> CdpamDistance:
    """Return the net with the package's weights; read and converted once.

    Raises ValueError where the file is not one with CDPAM's weights.
    """
    try:
        saved = load_tensors(file)
        assert isinstance(saved, dict)
        weights = {name: saved["state"][name] for name in _draw_weights()}
        check_shapes(_draw_weights, weights)
        net = CdpamDistance(weights)
    except UNREADABLE as error:
        allowed = "the weights of the package cdpam; install it anew"
        raise ValueError(f"cdpam={file}; must be {allowed}") from error
    return net.to(device)


def _fold_layer(state: _Weights, i: int) -> FrozenConv1d:
    """Return a convolution with the batch norm after it, as one convolution."""
    weight, bias = (state[f"base_encoder.encoder.{i}.{part}"].double() for part in _AFFINE)
    mean, variance, gain, offset = (state[f"base_encoder.ebatch.{i}.{p}"].double() for p in _NORM)
    scale = gain / (variance + 1e-5).sqrt()  # nn.BatchNorm1d's own epsilon
    return FrozenConv1d(
        (weight * scale[:, None, None]).float(),
        ((bias - mean) * scale + offset).float(),
        # The package drops every second value after activation: the same as never making it.
        stride=2 if i % _LAYERS_A_STRIDE == _LAYERS_A_STRIDE - 1 else 1,
        padding=_TAPS // 2,
    )


def _draw_weights() -> dict[str, Tensor]:
    """Return random weights under the names that the package's have."""
    modules: dict[str, nn.Module] = {}
    before, channels = 1, _FIRST_CHANNELS
    for i in range(_LAYERS):
        channels *= 2 if i % _LAYERS_A_STRIDE == _LAYERS_A_STRIDE - 1 else 1
        modules[f"base_encoder.encoder.{i}"] = nn.Conv1d(before, channels, _TAPS)
        modules[f"base_encoder.ebatch.{i}"] = nn.BatchNorm1d(channels)
        before = channels
    state = {}
    for i, (fewer, more) in enumerate(zip(_COMPARED[1:], _COMPARED, strict=False)):
        modules[f"model_dist.convs.{i}.0"] = nn.Linear(more, fewer)
        state[f"model_dist.chan_w.{i}"] = torch.randn(fewer)
    for name, module in modules.items():
        state |= {f"{name}.{part}": value.detach() for part, value in module.state_dict().items()}
    return state
