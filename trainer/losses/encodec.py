"""The term `encodec`: relative L1 between features of EnCodec's frozen encoder, at its own rate.

Défossez et al. 2022, High Fidelity Neural Audio Compression (arXiv:2210.13438). The package
`transformers` holds the architecture; its weights are a download (foreign.py).
"""

import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchaudio.functional as AF
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ
from trainer.loss_config import CodecFeatures
from trainer.losses.codec_features import Stage, StagedEncoder, relative_l1
from trainer.losses.foreign import ENCODEC_CONFIG, ENCODEC_WEIGHTS
from trainer.losses.frozen import FrozenConv1d, Residual, check_shapes
from trainer.losses.shapes import check_pair
from trainer.unreadable import UNREADABLE

if typing.TYPE_CHECKING:
    from transformers import EncodecConfig

PUBLISHED: Mapping[str, object] = {
    "sampling_rate": 48_000,
    "audio_channels": 2,
    "normalize": True,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}
"""In what facebook/encodec_48khz differs from EnCodec's defaults, as far as its encoder goes."""

_FIELD = "loss.encodec_weights"
_ALLOWED = f"a folder with EnCodec's {ENCODEC_CONFIG} and {ENCODEC_WEIGHTS}"
_PREFIX = "encoder."
_LEAST_SCALE = 1e-3
"""-60 dBFS: quieter targets are not brought to full volume."""
_TRIED_SAMPLES = 16_384
"""A configuration can also say what only a first clip shows to be wrong."""


class EncodecDistance(nn.Module):
    """Relative L1 of the features of EnCodec's encoder: two [clip, sample] to [clip].

    Clips are resampled to the model's rate and, for one in stereo, heard from both sides. A model
    that wants normalized input gets both at the target's level; its own norms are over the whole
    clip (in the codec, over each second), and hide most of a change of level.
    """

    def __init__(
        self, *, blocks: int, features: CodecFeatures, weights: Path | None = None
    ) -> None:
        """Set up the encoder's first `blocks`; without a folder, facebook/encodec_48khz's with
        random weights. Raises ValueError where the folder does not hold EnCodec."""
        super().__init__()
        if weights is None:
            config = _build_config(PUBLISHED)
            self._set_up(config, _build_encoder(config), blocks=blocks, features=features)
            return
        config = _read_config(weights)
        try:
            encoder = _load_encoder(config, weights / ENCODEC_WEIGHTS)
            self._set_up(config, encoder, blocks=blocks, features=features)
            self(torch.zeros(1, _TRIED_SAMPLES), torch.zeros(1, _TRIED_SAMPLES))
        except (*UNREADABLE, SafetensorError) as error:
            raise ValueError(f"{_FIELD}={weights}; must be {_ALLOWED}") from error

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each clip; the target's features have no gradient."""
        check_pair(estimate, target)
        made, aim = self._prepare(estimate), self._prepare(target.detach())
        if self._normalize:
            scale = aim[:, :1].square().mean(2, keepdim=True).sqrt().clamp_min(_LEAST_SCALE)
            made, aim = made / scale, aim / scale
        return relative_l1(self._encoder(made), self._encoder(aim))

    def _set_up(
        self, config: "EncodecConfig", encoder: nn.Module, *, blocks: int, features: CodecFeatures
    ) -> None:
        self._rate_hz = config.sampling_rate
        self._channels = config.audio_channels
        self._normalize = config.normalize
        self._encoder = _freeze(encoder, config, blocks=blocks, features=features)

    def _prepare(self, clips: Tensor) -> Tensor:
        """Return clips [clip, sample] as the model takes them, [clip, channel, sample]."""
        mono: Tensor = AF.resample(clips, SAMPLE_RATE_HZ, self._rate_hz)
        return mono[:, None].expand(-1, self._channels, -1)


class _PaddedConv(nn.Module):
    """EncodecConv1d, its padding computed from plain numbers: shapes without values will do."""

    def __init__(self, conv: FrozenConv1d, norm: nn.Module, *, is_causal: bool, mode: str) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self._is_causal, self._mode = is_causal, mode

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv.span - self.conv.stride
        right = 0 if self._is_causal else total // 2
        up_to_a_frame = -x.shape[2] % self.conv.stride
        x = F.pad(x, (total - right, right + up_to_a_frame), mode=self._mode)
        made: Tensor = self.norm(self.conv(x))
        return made


def _read_config(folder: Path) -> "EncodecConfig":
    from huggingface_hub.errors import StrictDataclassError  # of a field of the wrong type

    try:
        fields = json.loads((folder / ENCODEC_CONFIG).read_text())
        if fields["model_type"] != "encodec":
            raise ValueError(f"model_type={fields['model_type']}")
        return _build_config(fields)
    except (*UNREADABLE, StrictDataclassError) as error:
        raise ValueError(f"{_FIELD}={folder}; must be {_ALLOWED}") from error


def _build_config(fields: Mapping[str, Any]) -> "EncodecConfig":
    from transformers import EncodecConfig

    return EncodecConfig(**fields)


def _build_encoder(config: "EncodecConfig") -> nn.Module:
    from transformers.models.encodec.modeling_encodec import EncodecEncoder

    encoder: nn.Module = EncodecEncoder(config)
    return encoder


def _load_encoder(config: "EncodecConfig", file: Path) -> nn.Module:
    state = _read_state(file)
    check_shapes(lambda: _build_encoder(config).state_dict(), state)
    encoder = _build_encoder(config)
    encoder.load_state_dict(state)
    return encoder


def _read_state(file: Path) -> dict[str, Tensor]:
    """Return the encoder's weights, with what older versions of torch called weight norm's."""
    names = {"weight_g": "parametrizations.weight.original0"}
    names["weight_v"] = "parametrizations.weight.original1"
    state = {}
    for name, value in load_file(file).items():
        if name.startswith(_PREFIX):
            path, _, last = name.removeprefix(_PREFIX).rpartition(".")
            state[f"{path}.{names.get(last, last)}"] = value
    return state


def _freeze(
    encoder: nn.Module, config: "EncodecConfig", *, blocks: int, features: CodecFeatures
) -> StagedEncoder:
    layers = list(typing.cast("nn.ModuleList", encoder.layers))
    per_stage = config.num_residual_layers + 2  # and ELU, and the convolution that goes down
    stages = []
    for number in range(blocks):
        *units, elu, down = layers[1 + number * per_stage : 1 + (number + 1) * per_stage]
        stages.append(
            Stage(
                [_freeze_unit(unit, config) for unit in units],
                nn.Sequential(elu, _freeze_conv(down, config)),
            )
        )
    return StagedEncoder(_freeze_conv(layers[0], config), stages, features=features)


def _freeze_unit(unit: nn.Module, config: "EncodecConfig") -> Residual:
    layers = typing.cast("nn.ModuleList", unit.block)
    body = [layer if isinstance(layer, nn.ELU) else _freeze_conv(layer, config) for layer in layers]
    shortcut = typing.cast("nn.Module", unit.shortcut)
    if config.use_conv_shortcut:
        shortcut = _freeze_conv(shortcut, config)
    return Residual(nn.Sequential(*body), shortcut)


def _freeze_conv(layer: nn.Module, config: "EncodecConfig") -> _PaddedConv:
    conv = typing.cast("nn.Conv1d", layer.conv)
    if config.norm_type == "weight_norm":
        torch.nn.utils.parametrize.remove_parametrizations(conv, "weight")
        norm: nn.Module = nn.Identity()
    else:
        norm = typing.cast("nn.Module", layer.norm)
    return _PaddedConv(
        FrozenConv1d.from_conv(conv),
        norm,
        is_causal=config.use_causal_conv,
        mode=config.pad_mode,
    )
