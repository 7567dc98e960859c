"""The term `dac`: relative L1 between features of DAC's frozen encoder, at 44.1 kHz.

Kumar et al. 2023, High-Fidelity Audio Compression with Improved RVQGAN (arXiv:2306.06546). The
package `descript-audio-codec` holds the architecture; its weights are a download (foreign.py).
"""

import typing
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.config import SAMPLE_RATE_HZ
from trainer.fields import require
from trainer.loss_config import CodecFeatures
from trainer.losses.codec_features import Stage, StagedEncoder, relative_l1
from trainer.losses.frozen import FrozenConv1d, FrozenSnake, Residual, check_shapes
from trainer.losses.shapes import check_pair
from trainer.unreadable import UNREADABLE

_PUBLISHED: Mapping[str, object] = {
    "encoder_dim": 64,
    "encoder_rates": [2, 4, 8, 8],
    "latent_dim": 1024,
    "sample_rate": SAMPLE_RATE_HZ,
}
"""What of the published 44.1 kHz model's arguments makes its encoder."""

_FIELD = "loss.dac_weights"
_ALLOWED = "a file with DAC's weights at 44.1 kHz, as `python -m dac download` fetches it"
_PREFIX = "encoder."


class DacDistance(nn.Module):
    """Relative L1 of the features of DAC's encoder: (estimate, target) [clip, sample] to [clip]."""

    def __init__(
        self, *, blocks: int, features: CodecFeatures, weights: Path | None = None
    ) -> None:
        """Set up the encoder's first `blocks`; without a file, with random weights.

        Raises ValueError where the file is not one with DAC's weights.
        """
        super().__init__()
        if weights is None:
            encoder = _build_encoder(_PUBLISHED)
            self._encoder = _freeze(encoder, blocks=blocks, features=features)
        else:
            self._encoder = _load(weights, blocks=blocks, features=features)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each clip; the target's features have no gradient."""
        check_pair(estimate, target)
        made = self._encoder(estimate[:, None])  # [B, T] -> [B, 1, T]
        return relative_l1(made, self._encoder(target.detach()[:, None]))


def _build_encoder(arguments: Mapping[str, object]) -> nn.Module:
    with warnings.catch_warnings():  # of importing audiotools, and of its old weight norm
        warnings.simplefilter("ignore")
        from dac.model.dac import Encoder

        encoder: nn.Module = Encoder(
            arguments["encoder_dim"], arguments["encoder_rates"], arguments["latent_dim"]
        )
    return encoder


def _load(file: Path, *, blocks: int, features: CodecFeatures) -> StagedEncoder:
    arguments, state = _read(file)
    rate = arguments.get("sample_rate")
    other = f", not one for {rate} Hz" if isinstance(rate, int) and 0 < rate < 10**9 else ""
    require(rate == SAMPLE_RATE_HZ, _FIELD, file, _ALLOWED + other)
    weights = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    try:
        check_shapes(lambda: _build_encoder(arguments).state_dict(), weights)
        encoder = _build_encoder(arguments)
        encoder.load_state_dict(weights)
        return _freeze(encoder, blocks=blocks, features=features)
    except UNREADABLE as error:
        reason = f"{_ALLOWED}; its encoder is another"
        raise ValueError(f"{_FIELD}={file}; must be {reason}") from error


def _read(file: Path) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
    """Return the arguments and the weights of a net, as audiotools' BaseModel.save wrote them."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        arguments, state = saved["metadata"]["kwargs"], saved["state_dict"]
        if not (isinstance(arguments, Mapping) and all(isinstance(name, str) for name in state)):
            raise TypeError("not the kwargs and the state of a net")
        return arguments, dict(state)
    except UNREADABLE as error:
        raise ValueError(f"{_FIELD}={file}; must be {_ALLOWED}") from error


def _freeze(encoder: nn.Module, *, blocks: int, features: CodecFeatures) -> StagedEncoder:
    stem, *rest = _inside(encoder)
    stages = [_freeze_stage(_inside(block)) for block in rest[:blocks]]
    return StagedEncoder(_freeze_layer(stem), stages, features=features)


def _freeze_stage(block: nn.Sequential) -> Stage:
    *units, snake, down = block
    residuals = [
        Residual(nn.Sequential(*map(_freeze_layer, _inside(unit))), nn.Identity()) for unit in units
    ]
    return Stage(residuals, nn.Sequential(_freeze_layer(snake), _freeze_layer(down)))


def _inside(part: nn.Module) -> nn.Sequential:
    return typing.cast("nn.Sequential", part.block)


def _freeze_layer(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv1d):
        return FrozenConv1d.from_conv(nn.utils.remove_weight_norm(layer))
    return FrozenSnake(typing.cast("Tensor", layer.alpha))
