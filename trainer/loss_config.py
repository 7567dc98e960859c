"""The fields of the loss: which terms, how they are weighed, and where foreign nets lie."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.fields import require, require_from_zero, require_positive

TERMS = ("stft", "mel", "l1", "cdpam", "dac", "encodec", "adversarial", "feature_matching")
"""Every term of a loss. Each is a field of LossConfig: its weight."""

FOREIGN_TERMS = ("cdpam", "dac", "encodec")
"""Terms that need a net trained by others: its weights, and a package."""

CRITIC_TERMS = ("adversarial", "feature_matching")
"""Terms that train a discriminator beside the net."""

CodecFeatures = typing.Literal["units", "blocks"]

_OF_TERMS: Mapping[str, tuple[tuple[str, ...], object]] = {
    "dac_blocks": (("dac",), 1),
    "dac_features": (("dac",), "units"),
    "encodec_blocks": (("encodec",), 1),
    "encodec_features": (("encodec",), "units"),
    "discriminator_lr": (CRITIC_TERMS, 1e-4),
}
"""Fields that mean something only with one of some terms, and what they are then if not given."""

_MOST_BLOCKS = 4


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimized: terms, each with a weight.

    A weight of null leaves a term out; 0 computes and records it, and trains nothing by it.
    """

    stft: float | None = 1.0
    """Multi-resolution STFT distance, auraloss's; the validation metric."""
    mel: float | None = None
    """Seven-scale mel distance, DAC's."""
    l1: float | None = None
    """Mean absolute difference of samples."""
    cdpam: float | None = None
    """Learnt perceptual distance, at its own rate and scale; needs the extra `cdpam`."""
    dac: float | None = None
    """Relative L1 between features of DAC's frozen encoder; needs its weights."""
    encodec: float | None = None
    """The same with EnCodec's encoder."""
    adversarial: float | None = None
    """Least-squares GAN loss against DAC's discriminator, which is trained beside the net."""
    feature_matching: float | None = None
    """Relative to that discriminator's features, as DAC's."""
    balance: typing.Literal["fixed", "gradient"] = "fixed"
    """`gradient` rescales each term's gradient so that the weights are its shares (EnCodec's
    balancer)."""
    clips_at_once: int = 4
    """Clips of a batch that the terms look at together; bounds memory, and changes last bits."""
    dac_blocks: int | None = None
    """How many of the encoder's four blocks are looked into, from the first; 1 unless given."""
    dac_features: CodecFeatures | None = None
    """Features are taken after every residual unit (`units`) or every block (`blocks`)."""
    dac_weights: str | None = None
    """File with DAC's weights; none: where the package `dac` downloads them to."""
    dac_weights_hash: str | None = None
    """Refuse any other weights than these; none takes what is there."""
    encodec_blocks: int | None = None
    """As dac_blocks."""
    encodec_features: CodecFeatures | None = None
    """As dac_features."""
    encodec_weights: str | None = None
    """Folder with EnCodec's config.json and model.safetensors; none: Hugging Face's cache."""
    encodec_weights_hash: str | None = None
    """As dac_weights_hash."""
    discriminator_lr: float | None = None
    """Learning rate of the discriminator's AdamW; 1e-4 unless given, DAC's."""

    def __post_init__(self) -> None:
        for name, (terms, default) in _OF_TERMS.items():
            self._resolve(name, terms, default)
        for name, weight in self.weights.items():
            require_from_zero(f"loss.{name}", weight)
        trained = any(weight > 0 for weight in self.weights.values())
        require(trained, "loss", self.weights, "at least one term with a weight > 0")
        require(self.clips_at_once >= 1, "loss.clips_at_once", self.clips_at_once, ">= 1")
        for name in ("dac_blocks", "encodec_blocks"):
            blocks = getattr(self, name)
            ok = blocks is None or 1 <= blocks <= _MOST_BLOCKS
            require(ok, f"loss.{name}", blocks, f"from 1 to {_MOST_BLOCKS}")
        require_positive("loss.discriminator_lr", self.discriminator_lr)

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each term that is computed, in the order of TERMS."""
        given = ((name, getattr(self, name)) for name in TERMS)
        return {name: weight for name, weight in given if weight is not None}

    def _resolve(self, name: str, terms: tuple[str, ...], default: object) -> None:
        value = getattr(self, name)
        if not any(term in self.weights for term in terms):
            only = f"null without loss.{' or loss.'.join(terms)}"
            require(value is None, f"loss.{name}", value, only)
        elif value is None:
            object.__setattr__(self, name, default)
