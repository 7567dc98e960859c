"""What one trial is made of: every field with its meaning, unit, range and only default.

No torch here: sweeps and the command line read, check and hash configurations without importing it.
"""

import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.fields import build, convert, leaf_types, leaf_values, require
from trainer.loss_config import LossConfig
from trainer.model_config import ModelConfig
from trainer.optimizer_config import OptimizerConfig

SAMPLE_RATE_HZ = 44_100
"""Every recording is brought to this rate."""

TRAINER_REVISION = 2
"""Raised whenever the same configuration gives other results than before."""

METRIC = "stft"
"""The validation metric that trials are judged by; lower is better."""

MAX_SHIFT_SEMITONES = 12
ALL_SHIFTS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)

_IRRELEVANT_TO_RESULT = (
    "data.path",
    "data.fingerprint",
    "data.cache",
    "loss.dac_weights",
    "loss.encodec_weights",
    "device",
)
"""Left out of the trial's fingerprint: where the recordings, their cache and foreign weights lie
(their own hashes are in it), and where the arithmetic runs."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which recordings, and how they are cut into training batches."""

    path: str = "demo"
    """Folder of recordings, or `demo` for synthesized ones."""
    fingerprint: str | None = None
    """Refuse any other data than this; none takes what is there."""
    cache: str = "~/.unshift/cache"
    """Folder for the decoded, memory-mapped recordings."""
    clip_samples: int = 49_152
    """Length of a training clip at 44.1 kHz."""
    batch_size: int = 32
    """Clips per step."""

    def __post_init__(self) -> None:
        require(self.clip_samples >= 4096, "data.clip_samples", self.clip_samples, ">= 4096")
        require(self.batch_size >= 1, "data.batch_size", self.batch_size, ">= 1")


@dataclass(frozen=True, kw_only=True)
class DamageConfig:
    """What is done to a training clip, for the net to undo."""

    shifts: tuple[int, ...] = ALL_SHIFTS
    """Semitones up (positive) or down, one drawn per clip; then the way back."""

    def __post_init__(self) -> None:
        _check_shifts("damage.shifts", self.shifts)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """The fixed clips and damage that every trial on a data set is judged by.

    Not varied within a sweep: one do-nothing score holds for all of its trials.
    """

    clips: int = 24
    """How many clips, spread over the held-out recordings."""
    clip_samples: int = 49_152
    """Their length, whatever the length of the training clips."""
    shifts: tuple[int, ...] = ALL_SHIFTS
    """Damage in semitones, in turn over the clips."""

    def __post_init__(self) -> None:
        require(self.clips >= 1, "validation.clips", self.clips, ">= 1")
        enough = self.clip_samples >= 4096
        require(enough, "validation.clip_samples", self.clip_samples, ">= 4096")
        _check_shifts("validation.shifts", self.shifts)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One trial, whole: the same configuration on the same data gives the same result."""

    data: DataConfig = field(default_factory=DataConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    steps: int = 10_000
    """Optimizer updates in all."""
    report_every: int = 250
    """Steps between two validations; there is always one at the last step."""
    seed: int = 0
    """Initial weights, clips and shifts follow from it."""
    precision: typing.Literal["float32", "bf16"] = "float32"
    """`bf16` runs the net's forward pass under bfloat16 autocast; losses stay in float32."""
    compile: bool = False
    """Whether the net goes through torch.compile."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:N` or `mps`."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, ">= 1")
        require(self.report_every >= 1, "report_every", self.report_every, ">= 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        multiple = self.model.length_multiple
        for name, samples in (
            ("data.clip_samples", self.data.clip_samples),
            ("validation.clip_samples", self.validation.clip_samples),
        ):
            allowed = f"a multiple of {multiple}, the product of model.factors"
            require(samples % multiple == 0, name, samples, allowed)

    @classmethod
    def from_fields(cls, values: Mapping[str, object]) -> "TrainConfig":
        """Build from dotted fields, `{"optimizer.lr": 1e-3}`; what is not named has its default.

        Raises ValueError naming the field, its value and what is allowed.
        """
        known = dict(leaf_types(cls))
        for name in values:
            choices = ", ".join(sorted(known))
            require(name in known, "field", name, f"one of {choices}")
        typed = {name: convert(name, value, known[name]) for name, value in values.items()}
        return build(cls, typed)

    def to_fields(self) -> dict[str, object]:
        """Return every dotted field with its resolved value, in JSON's types."""
        return dict(leaf_values(self))

    def fingerprint(self, data_fingerprint: str, *, revision: int = TRAINER_REVISION) -> str:
        """Return the trial's name, 16 hex digits: a hash of all that changes its result."""
        relevant = {k: v for k, v in self.to_fields().items() if k not in _IRRELEVANT_TO_RESULT}
        identity = [revision, data_fingerprint, relevant]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _check_shifts(name: str, shifts: tuple[int, ...]) -> None:
    limit = MAX_SHIFT_SEMITONES
    ok = len(shifts) > 0 and all(n != 0 and abs(n) <= limit for n in shifts)
    require(ok, name, shifts, f"whole semitones from -{limit} to {limit} without 0, at least one")
