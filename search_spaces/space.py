"""What a search space is made of: the trial it asks, what all trials share, and the space itself.

A module here that is one space defines `suggest(trial)` and `KNOWN_POINTS`, both for the research
log's size with every term of the loss at hand. One that depends on what all trials share defines
`space_for(shared)` too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Trial(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Choose a number from low to high."""
        ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Choose one of low, low + step, ... up to high."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Choose one of some names; the same names each time that it is asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of a sweep share, as far as a space may depend on it."""

    size: str
    """`log` or `demo`."""
    fields: Mapping[str, object]
    """Every dotted field of the trainer, resolved, as it is where a trial does not vary it."""
    absent_terms: frozenset[str] = frozenset()
    """Terms of the loss whose weights or package are not there."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What may vary, and where to begin."""

    suggest: Callable[[Trial], dict[str, object]]
    """Returns {dotted field: value}; a field that means nothing beside the others is left out."""
    known_points: Sequence[Mapping[str, object]] = ()
    """Parameters by the names and values that a trial is asked for, not fields. Tried first."""
    left_out: Sequence[str] = ()
    """Absent terms of the loss that would have varied."""


LOG = Shared(
    size="log",
    fields={"data.batch_size": 32, "data.clip_samples": 49_152, "steps": 10_000},
)
"""The research log's size, with all terms: of its fields, those that spaces look at. A test holds
them equal to the trainer's defaults."""
