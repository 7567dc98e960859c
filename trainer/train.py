"""One trial, from a configuration to an outcome: the loop, and nothing of who asked for it.

`train` tells the story; `TrainingRun` in trainer/training_run.py holds the parts it names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.config import TrainConfig
from trainer.journal import Row
from trainer.training_run import Diverged, TrainingRun

Ending = Literal["finished", "stopped", "diverged", "interrupted"]


class StopTraining(Exception):
    """Raised by a `report` that has seen enough; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a trial ended."""

    outcome: Ending
    step: int
    """Steps done."""
    value: float | None
    """Best validation over all reports, that of the weights kept; none before the first."""
    last_value: float | None
    """Validation at the last report."""
    reason: str = ""
    """Why it did not finish."""


def never() -> bool:
    """Return False: nobody asks to stop."""
    return False


def train(
    config: TrainConfig,
    *,
    report: Callable[[Row], None],
    should_stop: Callable[[], bool] = never,
    resume_from: Path | None = None,
    folder: Path | None = None,
    commit: str = "unknown",
) -> TrainResult:
    """Train one net, calling `report` with a row after each validation.

    `report` may raise StopTraining; `should_stop` is asked between steps. With a `folder`, the
    record (config.json), the journal, the last checkpoint and the best weights are kept in it, and
    `resume_from` (a checkpoint, or the folder it lies in) goes on as if never interrupted.
    What a full disk does not take is written later; a trial does not finish without its journal and
    best weights. Raises ValueError for bad recordings, devices, checkpoints and folders.
    """
    run = TrainingRun.begin(config, folder=folder, commit=commit, resume_from=resume_from)
    try:
        with run.batches() as batches:
            for clips, shifts in batches:
                run.update(clips, shifts)
                if run.is_report_due:
                    row = run.validate()
                    run.keep(row)
                    report(dict(row))
                if should_stop() and not run.is_complete:
                    run.save()
                    return _result(run, "interrupted", "asked to stop")
    except Diverged as error:
        return _result(run, "diverged", str(error))
    except StopTraining as stop:
        return _result(run, "stopped", str(stop))
    run.close()
    return _result(run, "finished", "")


def _result(run: TrainingRun, outcome: Ending, reason: str) -> TrainResult:
    return TrainResult(
        outcome=outcome,
        step=run.step,
        value=run.value,
        last_value=run.last_value,
        reason=reason,
    )
