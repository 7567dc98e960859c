"""Train a recorded trial again, here and without Ray, and say whether it came out the same."""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.config import TRAINER_REVISION, TrainConfig
from trainer.device import describe_environment, resolve_device
from trainer.journal import MEASURED_ONLY, Row
from trainer.record import ENVIRONMENT_KEYS, Record
from trainer.train import StopTraining, train

_TOLERANCE_PER_STEP = 1e-4
_LARGEST_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How close is the same."""

    is_exact: bool
    why: str

    def tolerance(self, step: int) -> float:
        """Return the relative difference allowed at a step: rounding grows while training."""
        return 0.0 if self.is_exact else min(_LARGEST_TOLERANCE, _TOLERANCE_PER_STEP * step)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first thing that came out otherwise."""

    step: int
    field: str
    recorded: float | None
    here: float | None

    def __str__(self) -> str:
        return f"step {self.step}: {self.field} was {self.recorded}, is {self.here} here"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a re-run found."""

    rule: Rule
    steps: int
    """Steps trained again."""
    rows: int
    """Reports compared."""
    difference: Difference | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        found = self.difference
        return {
            "same": found is None,
            "rule": "exact" if self.rule.is_exact else "tolerance",
            "rule_reason": self.rule.why,
            "tolerance_at_end": self.rule.tolerance(self.steps),
            "steps": self.steps,
            "reports": self.rows,
            "first_difference": None if found is None else vars(found),
            "warnings": list(self.warnings),
        }


def rerun(
    record: Record,
    recorded: Sequence[Row],
    config: TrainConfig,
    *,
    commit: str,
    on_row: Callable[[Row], None],
) -> Comparison:
    """Train a record's configuration again, as `config` with this machine's paths and device,
    up to the last of the recorded rows, and compare each report as it comes.

    Raises ValueError when there is nothing to compare with.
    """
    if not recorded:
        raise ValueError("the record holds no report: there is nothing to compare with")
    last = int(recorded[-1]["step"])
    made: list[Row] = []

    def keep(row: Row) -> None:
        made.append(row)
        on_row(row)
        if int(row["step"]) >= last:
            raise StopTraining("all that was recorded has been trained again")

    if record.environments:
        torch.set_num_threads(int(str(record.environments[0]["threads"])))
    rule = _choose_rule(record, config)
    with tempfile.TemporaryDirectory(prefix="unshift-rerun-") as folder:
        result = train(config, report=keep, folder=Path(folder), commit=commit)
    difference = find_difference(recorded, made, rule)
    if difference is None and result.outcome == "diverged":
        difference = Difference(
            step=result.step,
            field=f"outcome (now diverged: {result.reason})",
            recorded=None,
            here=None,
        )
    return Comparison(
        rule=rule,
        steps=last,
        rows=len(recorded),
        difference=difference,
        warnings=tuple(_warn(record, commit)),
    )


def rows_up_to(rows: Sequence[Row], step: int | None) -> Sequence[Row]:
    """Return the reports up to the first one at or after a step; all of them without one."""
    if step is None:
        return rows
    before = [row for row in rows if int(row["step"]) < step]
    return rows[: len(before) + 1]


def find_difference(recorded: Sequence[Row], here: Sequence[Row], rule: Rule) -> Difference | None:
    """Return the first value that differs by more than the rule allows, by step, then by field.

    What a row says of speed and memory is not compared.
    """
    for index, row in enumerate(recorded):
        step = int(row["step"])
        other = here[index] if index < len(here) else {}
        for at, field, was, now in _values(row, other, before=_step_before(recorded, index)):
            if not _is_same(was, now, rule.tolerance(at)):
                return Difference(step=at, field=field, recorded=was, here=now)
        if other.get("step") != step:
            return Difference(step=step, field="step", recorded=step, here=None)
    return None


def _values(
    row: Row, other: Row, *, before: int
) -> Iterable[tuple[int, str, float | None, float | None]]:
    """Yield (step, field, recorded, here): each step's training loss first, then the report."""
    if "train_losses" in row:  # MLflow's records have none
        losses = itertools.zip_longest(row["train_losses"], other.get("train_losses", []))
        for step, (was, now) in enumerate(losses, start=before + 1):
            yield step, "train_losses", was, now
    for field, was in row.items():
        if field not in MEASURED_ONLY | {"train_losses"}:
            yield row["step"], field, was, other.get(field)


def _step_before(rows: Sequence[Row], index: int) -> int:
    return int(rows[index - 1]["step"]) if index else 0


def _is_same(was: float | None, now: float | None, tolerance: float) -> bool:
    if was is None or now is None:
        return False
    return was == now or math.isclose(was, now, rel_tol=tolerance, abs_tol=0.0)


def _choose_rule(record: Record, config: TrainConfig) -> Rule:
    here = describe_environment(resolve_device(config.device))
    if record.trainer_revision != TRAINER_REVISION:
        return Rule(is_exact=False, why=_tell_revisions(record))
    if not record.environments:
        return Rule(is_exact=False, why="the record does not say where it ran")
    for there in record.environments:
        for name in sorted(ENVIRONMENT_KEYS):
            if there[name] != here[name]:
                return Rule(is_exact=False, why=f"{name} was {there[name]}, is {here[name]} here")
    return Rule(is_exact=True, why="same device, versions and thread count")


def _warn(record: Record, commit: str) -> Iterable[str]:
    if record.trainer_revision != TRAINER_REVISION:
        yield _tell_revisions(record)
    if record.commit != commit:
        yield f"commit was {record.commit}, is {commit} here"


def _tell_revisions(record: Record) -> str:
    return f"trainer revision was {record.trainer_revision}, is {TRAINER_REVISION} here"
