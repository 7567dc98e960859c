"""Comparison of recordings: every metric between a reference and an estimate of it.

How recordings that start at different moments are brought together is in alignment.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainer.alignment import cut_to_common, find_lag
from trainer.evaluate import measure
from trainer.losses.cdpam import cdpam_distance
from trainer.losses.spectral import MIN_SAMPLES
from trainer.recordings import Samples, UnusableRecording, find_recordings, read_mono, resample

METRICS = ("stft", "mel", "lsd_db", "si_sdr_db", "l1", "cdpam")
HIGHER_IS_BETTER = frozenset({"si_sdr_db"})

Metrics = dict[str, float | None]
"""Each of METRICS; None where it has no value or, for `cdpam`, its package is not installed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the comparison of two recordings gave."""

    metrics: Metrics
    lag_samples: int | None
    """By how much the estimate was later, at 44.1 kHz; None where they were not aligned."""

    def to_json(self) -> dict[str, float | None]:
        """Return the contract of `compare --json`."""
        return {**self.metrics, "lag_samples": self.lag_samples}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The recordings of two folders, by their paths below it without the ending."""

    matched: dict[str, tuple[Path, Path]]
    """Reference and estimate by name."""
    unmatched: list[Path]


def compare_recordings(
    reference: Path, estimate: Path, *, align: bool, device: torch.device
) -> Comparison:
    """Compare two recordings at 44.1 kHz, channels averaged.

    Raises ValueError where one cannot be read or is too short and, unless they are to be aligned,
    where they differ in sample rate or length. Raises OSError where one cannot be opened.
    """
    aim, made = _read("reference", reference), _read("estimate", estimate)
    if not align:
        _check_alike(aim, made)
        return Comparison(
            metrics=compare(aim.samples, made.samples, device=device), lag_samples=None
        )
    lag = find_lag(aim.samples, made.samples, device=device)
    common = cut_to_common(aim.samples, made.samples, lag)
    return Comparison(metrics=compare(*common, device=device), lag_samples=lag)


@torch.no_grad()
def compare(reference: Samples, estimate: Samples, *, device: torch.device) -> Metrics:
    """Return every metric between two signals [sample] of one length at 44.1 kHz, full band."""
    if len(reference) < MIN_SAMPLES:
        raise ValueError(f"samples={len(reference)}; must be at least {MIN_SAMPLES} at 44.1 kHz")
    aim, made = (torch.from_numpy(signal).to(device) for signal in (reference, estimate))
    measured = measure(made[None], aim[None], torch.ones(1, device=device))
    values: Metrics = {name: value.item() for name, value in measured.items()}
    if not (reference.any() and estimate.any()):
        values["si_sdr_db"] = None  # 0 / 0, in which the floors of the loss would be read
    values["cdpam"] = cdpam_distance(made, aim)
    return {name: _finite(values[name]) for name in METRICS}


def mean_metrics(many: Sequence[Mapping[str, float | None]]) -> Metrics:
    """Return the mean of each metric over those that have it, None where none has."""
    return {name: _mean(metrics[name] for metrics in many) for name in METRICS}


def pair_recordings(references: Path, estimates: Path) -> Pairs:
    """Match the recordings of two folders by path below it, whatever their endings.

    Raises ValueError where nothing matches, or where two of one folder differ by ending alone.
    """
    aims, mades = _by_name("reference", references), _by_name("estimate", estimates)
    names = sorted(aims.keys() & mades.keys())
    if not names:
        raise ValueError(
            f"estimate={estimates}; must hold recordings named like those of {references}: "
            f"none of {len(mades)} is like one of {len(aims)}"
        )
    lone = [aims.get(name) or mades[name] for name in sorted(aims.keys() ^ mades.keys())]
    return Pairs(matched={name: (aims[name], mades[name]) for name in names}, unmatched=lone)


@dataclass(frozen=True, kw_only=True)
class _Recording:
    field: str
    path: Path
    samples: Samples
    """At 44.1 kHz."""
    rate_hz: int
    """The file's own, as is the number of its frames."""
    frames: int


def _read(field: str, path: Path) -> _Recording:
    try:
        mono, rate_hz = read_mono(path)
    except UnusableRecording as error:
        raise ValueError(
            f"{field}={path}; must be a recording that can be read: {error}"
        ) from error
    samples = resample(mono, rate_hz) if len(mono) else mono
    if len(samples) < MIN_SAMPLES:
        length = f"{len(samples)} samples at 44.1 kHz"
        raise ValueError(f"{field}={path}; must have at least {MIN_SAMPLES} samples, not {length}")
    return _Recording(field=field, path=path, samples=samples, rate_hz=rate_hz, frames=len(mono))


def _check_alike(reference: _Recording, estimate: _Recording) -> None:
    subject, otherwise = f"estimate={estimate.path}", "unless they are aligned (--align)"
    if estimate.rate_hz != reference.rate_hz:
        rates = f"the reference's {reference.rate_hz} Hz, not {estimate.rate_hz} Hz"
        raise ValueError(f"{subject}; must have {rates}, {otherwise}")
    if estimate.frames != reference.frames:
        lengths = f"the reference's {reference.frames} samples, not {estimate.frames}"
        raise ValueError(f"{subject}; must have {lengths}, {otherwise}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _by_name(field: str, folder: Path) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in find_recordings(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in named:
            both = f"{named[name].name} and {path.name}"
            raise ValueError(f"{field}={path.parent}; must not hold two recordings {name}: {both}")
        named[name] = path
    return named
