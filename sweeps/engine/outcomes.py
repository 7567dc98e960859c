"""How trials end, what is kept of each, and in which order they rank."""

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trainer.fields import require, require_from_zero

Outcome = Literal["finished", "stopped", "interrupted", "diverged", "out_of_memory", "failed"]
"""In the order of their rank."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

OUTGROWN = "outgrown"
"""No outcome: the ending of a trial that goes on from its checkpoint on a larger share of a GPU."""

INFEASIBLE: tuple[Outcome, ...] = ("diverged", "out_of_memory")
"""What the sampler must learn to stay away from."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What a sweep keeps of one trial, in JSON's types."""

    fingerprint: str
    outcome: Outcome
    params: dict[str, Any] = field(default_factory=dict)
    """The varied fields."""
    notes: dict[str, str] = field(default_factory=dict)
    """What tables show of it by column, where that is not the varied fields."""
    step: int = 0
    """Steps done."""
    value: float | None = None
    """Best validation over the reports, that of the weights kept."""
    last_value: float | None = None
    parameters: int | None = None
    """Trained values of the net."""
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str = ""
    """Why it did not finish, in one line."""
    restarts: int = 0
    """How often its worker died and another went on from its checkpoint."""
    taken_over_from: str = ""
    """The sweep that trained it, when that was another one."""

    def __post_init__(self) -> None:
        # A store may be somebody else's: a name like this leads nowhere, whatever it is put into.
        if not re.fullmatch(r"[\w-]{1,64}", self.fingerprint):
            raise ValueError(f"fingerprint={self.fingerprint!r}; must be 16 hex digits")
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome={self.outcome!r}; must be one of {', '.join(OUTCOMES)}")

    @property
    def is_ended(self) -> bool:
        """Whether it will not go on."""
        return self.outcome != "interrupted"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TrialRecord":
        """Build from `to_json`'s dictionary, which may be damaged or somebody else's.

        Raises ValueError for what is none of this version, and for values that cannot be.
        """
        try:
            record = cls(**content)
        except TypeError as error:
            reason = str(error).removeprefix("TrialRecord.__init__() ")
            raise ValueError(f"record of a trial; must be one of this unshift: {reason}") from error
        _check_types(record)
        require_from_zero("seconds", record.seconds)
        if record.outcome == "finished":
            is_finite = record.value is not None and math.isfinite(record.value)
            require(is_finite, "value", record.value, "finite, of a trial that finished")
        return record


def rank(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the records from best to worst.

    Finished trials by value; then stopped ones by how far they came, then value; then interrupted
    ones likewise; diverged, out of memory and failed last.
    """
    return sorted(records, key=_rank_key)


def gain_percent(value: float | None, do_nothing: float) -> float | None:
    """Return by how much a value lies below do-nothing's, in percent of that; negative is worse."""
    if value is None or do_nothing == 0:
        return None
    return 100 * (do_nothing - value) / do_nothing


def _check_types(record: TrialRecord) -> None:
    """Raise ValueError for a field of another type than JSON has for it, or of a negative count."""
    for name in ("params", "notes"):
        value = getattr(record, name)
        require(isinstance(value, dict), name, value, "an object")
    texts = ("error", record.error), ("taken_over_from", record.taken_over_from)
    for name, value in (*texts, *record.notes.items()):
        require(isinstance(value, str), name, value, "a text")
    for name in ("value", "last_value", "seconds"):
        value = getattr(record, name)
        require(value is None or _is_number(value), name, value, "a number, or null")
    for name, value in (("step", record.step), ("restarts", record.restarts)):
        require(_is_count(value), name, value, "a whole number, >= 0")
    for name in ("parameters", "peak_memory_bytes"):
        value = getattr(record, name)
        require(value is None or _is_count(value), name, value, "a whole number, >= 0, or null")


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _rank_key(record: TrialRecord) -> tuple[int, int, float, str]:
    position = OUTCOMES.index(record.outcome)
    came = 0 if record.outcome == "finished" else -record.step
    value = math.inf if record.value is None or math.isnan(record.value) else record.value
    return position, came, value, record.fingerprint
