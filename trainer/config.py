"""What one trial is made of: every field with its meaning, unit, range and only default.

No torch here: sweeps and the command line read, check and hash configurations without importing it.
"""

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

SAMPLE_RATE_HZ = 44_100
"""Every recording is brought to this rate."""

TRAINER_REVISION = 1
"""Raised whenever the same configuration gives other results than before."""

METRIC = "stft"
"""The validation metric that trials are judged by; lower is better."""

MAX_SHIFT_SEMITONES = 12
ALL_SHIFTS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)

_T = typing.TypeVar("_T")

_IRRELEVANT_TO_RESULT = ("data.path", "data.fingerprint", "data.cache", "device")
"""Left out of the trial's fingerprint: where the recordings and their cache lie (the data's own
fingerprint is hashed beside the configuration), and where the arithmetic runs."""


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
        _require(self.clip_samples >= 4096, "data.clip_samples", self.clip_samples, ">= 4096")
        _require(self.batch_size >= 1, "data.batch_size", self.batch_size, ">= 1")


@dataclass(frozen=True, kw_only=True)
class DamageConfig:
    """What is done to a training clip, for the net to undo."""

    shifts: tuple[int, ...] = ALL_SHIFTS
    """Semitones up (positive) or down, one drawn per clip; then the way back."""

    def __post_init__(self) -> None:
        _check_shifts("damage.shifts", self.shifts)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The net. The default is the log's best: output27's."""

    family: typing.Literal["waveform", "spectrogram"] = "waveform"
    """`waveform`: U-Net of 1-D ConvNeXt stages. `spectrogram`: ConvNeXt blocks over STFT frames."""
    channels: tuple[int, ...] = (1, 8, 64, 256, 512)
    """Waveform: width of the input (1) and of each stage. Spectrogram: width of each stage."""
    blocks: tuple[int, ...] = (4, 4, 4, 4)
    """Residual blocks per stage (waveform: on the way down, and as many on the way up)."""
    factors: tuple[int, ...] = (8, 8, 4, 2)
    """Waveform: down-sampling into each stage. Spectrogram: none, so ()."""
    kernel_size: int = 41
    """Taps of each depthwise convolution; odd."""
    output: typing.Literal["direct", "difference"] = "direct"
    """`difference` adds to its input, starting from nothing: the net starts as the identity."""

    def __post_init__(self) -> None:
        for name, values in (("channels", self.channels), ("blocks", self.blocks)):
            allowed = "one or more whole numbers >= 1"
            ok = len(values) > 0 and min(values) >= 1
            _require(ok, f"model.{name}", values, allowed)
        odd = self.kernel_size >= 1 and self.kernel_size % 2 == 1
        _require(odd, "model.kernel_size", self.kernel_size, "odd and >= 1")
        if self.family == "waveform":
            self._check_waveform()
        else:
            self._check_spectrogram()

    def _check_waveform(self) -> None:
        stages = len(self.channels) - 1
        _require(self.channels[0] == 1, "model.channels", self.channels, "1 first: the waveform")
        _require(stages >= 1, "model.channels", self.channels, "1 and the width of each stage")
        for name, values in (("blocks", self.blocks), ("factors", self.factors)):
            allowed = f"{stages} long, one for each of model.channels after the first"
            _require(len(values) == stages, f"model.{name}", values, allowed)
        _require(min(self.factors) >= 1, "model.factors", self.factors, "whole numbers >= 1")

    def _check_spectrogram(self) -> None:
        allowed = f"{len(self.channels)} long, one for each of model.channels"
        _require(len(self.blocks) == len(self.channels), "model.blocks", self.blocks, allowed)
        _require(self.factors == (), "model.factors", self.factors, "[] with family spectrogram")

    @property
    def length_multiple(self) -> int:
        """Return the number that a clip's samples must be a multiple of."""
        return math.prod(self.factors)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights move."""

    name: typing.Literal["muon_adamw", "adamw"] = "muon_adamw"
    """`muon_adamw`: Muon for the matrices between layers, AdamW for all else. `adamw`: AdamW."""
    lr: float = 5e-3
    """Learning rate of the matrices (Muon's), or of everything with `adamw`."""
    adamw_lr: float | None = None
    """Learning rate of AdamW beside Muon; a tenth of `lr` unless given, the log's ratio."""
    momentum: float = 0.95
    """Muon's momentum; beta1 with `adamw`."""
    weight_decay: float = 0.0
    """Decoupled weight decay, per step and learning rate."""
    clip_norm: float | None = None
    """Largest gradient norm over all weights; none means no clipping."""

    def __post_init__(self) -> None:
        if self.name == "muon_adamw" and self.adamw_lr is None:
            object.__setattr__(self, "adamw_lr", self.lr / 10)
        if self.name == "adamw":
            only = "null with optimizer.name=adamw, whose rate is optimizer.lr"
            _require(self.adamw_lr is None, "optimizer.adamw_lr", self.adamw_lr, only)
        _require(_positive(self.lr), "optimizer.lr", self.lr, "> 0")
        if self.adamw_lr is not None:
            _require(_positive(self.adamw_lr), "optimizer.adamw_lr", self.adamw_lr, "> 0")
        _require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, ">= 0 and < 1")
        decay_ok = self.weight_decay >= 0 and math.isfinite(self.weight_decay)
        _require(decay_ok, "optimizer.weight_decay", self.weight_decay, ">= 0")
        if self.clip_norm is not None:
            _require(_positive(self.clip_norm), "optimizer.clip_norm", self.clip_norm, "> 0")


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
        _require(self.clips >= 1, "validation.clips", self.clips, ">= 1")
        enough = self.clip_samples >= 4096
        _require(enough, "validation.clip_samples", self.clip_samples, ">= 4096")
        _check_shifts("validation.shifts", self.shifts)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One trial, whole: the same configuration on the same data gives the same result."""

    data: DataConfig = field(default_factory=DataConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
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
        _require(self.steps >= 1, "steps", self.steps, ">= 1")
        _require(self.report_every >= 1, "report_every", self.report_every, ">= 1")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        multiple = self.model.length_multiple
        for name, samples in (
            ("data.clip_samples", self.data.clip_samples),
            ("validation.clip_samples", self.validation.clip_samples),
        ):
            allowed = f"a multiple of {multiple}, the product of model.factors"
            _require(samples % multiple == 0, name, samples, allowed)

    @classmethod
    def from_fields(cls, values: Mapping[str, object]) -> "TrainConfig":
        """Build from dotted fields, `{"optimizer.lr": 1e-3}`; what is not named has its default.

        Raises ValueError naming the field, its value and what is allowed.
        """
        known = dict(_leaf_types(cls))
        for name in values:
            choices = ", ".join(sorted(known))
            _require(name in known, "field", name, f"one of {choices}")
        typed = {name: _convert(name, value, known[name]) for name, value in values.items()}
        return _build(cls, typed, prefix="")

    def to_fields(self) -> dict[str, object]:
        """Return every dotted field with its resolved value, in JSON's types."""
        return dict(_leaf_values(self, prefix=""))

    def fingerprint(self, data_fingerprint: str, *, revision: int = TRAINER_REVISION) -> str:
        """Return the trial's name, 16 hex digits: a hash of all that changes its result."""
        relevant = {k: v for k, v in self.to_fields().items() if k not in _IRRELEVANT_TO_RESULT}
        identity = [revision, data_fingerprint, relevant]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        shown = list(value) if isinstance(value, tuple) else value
        raise ValueError(f"{name}={shown}; must be {allowed}")


def _positive(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def _check_shifts(name: str, shifts: tuple[int, ...]) -> None:
    limit = MAX_SHIFT_SEMITONES
    ok = len(shifts) > 0 and all(n != 0 and abs(n) <= limit for n in shifts)
    _require(ok, name, shifts, f"whole semitones from -{limit} to {limit} without 0, at least one")


def _leaf_types(cls: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, kind in typing.get_type_hints(cls).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _leaf_types(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def _leaf_values(config: object, prefix: str) -> Iterator[tuple[str, object]]:
    for part in fields(config):  # type: ignore[arg-type]
        value = getattr(config, part.name)
        if dataclasses.is_dataclass(value):
            yield from _leaf_values(value, f"{prefix}{part.name}.")
        else:
            yield prefix + part.name, list(value) if isinstance(value, tuple) else value


def _convert(name: str, value: object, kind: object) -> object:
    """Return a JSON value as the field's own type, or raise ValueError saying what that is."""
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        _require(value in choices, name, value, f"one of {', '.join(map(str, choices))}")
        return value
    if kind == tuple[int, ...]:
        ok = isinstance(value, list | tuple) and all(type(v) is int for v in value)
        _require(ok, name, value, "a list of whole numbers")
        return tuple(typing.cast("list[int]", value))
    if value is None and type(None) in typing.get_args(kind):
        return None
    wanted = next((k for k in typing.get_args(kind) if k is not type(None)), kind)
    if wanted is float:
        _require(type(value) in (int, float), name, value, "a number")
        return float(typing.cast("float", value))
    _require(type(value) is wanted, name, value, f"of type {getattr(wanted, '__name__', wanted)}")
    return value


def _build(cls: type[_T], values: Mapping[str, object], *, prefix: str) -> _T:
    arguments: dict[str, object] = {}
    for name, kind in typing.get_type_hints(cls).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            arguments[name] = _build(kind, values, prefix=f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return cls(**arguments)
