"""What happens to trials, told to all who must know: the study, MLflow, and whoever watches.

Tune calls back here for every report and every end, with the result that stopped a trial and the
error that ended it, which its searchers do not get to see.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from ray import tune
from ray.tune.experiment import Trial

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.store import Root
from sweeps.engine.study import Suggestion, SweepStudy
from sweeps.engine.tracking import Tracking
from trainer.config import METRIC
from trainer.journal import Row
from trainer.models import build_model, count_parameters
from trainer.record import Record


class Watcher(Protocol):
    """Whoever is shown what happens."""

    def row(self, record: TrialRecord, row: Row) -> None:
        """See a report of a running trial."""

    def ended(self, record: TrialRecord) -> None:
        """See how a trial ended."""


class Recorder(tune.Callback):
    """Follows every trial from suggestion to outcome."""

    def __init__(
        self,
        study: SweepStudy,
        stopper: SweepStopper,
        tracking: Tracking,
        watcher: Watcher,
        *,
        root: Root,
        commit: str,
    ) -> None:
        self._study = study
        self._stopper = stopper
        self._tracking = tracking
        self._watcher = watcher
        self._root = root
        self._commit = commit
        self._so_far: dict[str, TrialRecord] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its parts to restore them, and a sweep never does."""
        return {}

    def begin(self, suggestion: Suggestion) -> None:
        """Open the books for a trial that is handed to Tune."""
        name = suggestion.fingerprint
        self._so_far[name] = TrialRecord(
            fingerprint=name,
            outcome="interrupted",
            params=suggestion.fields,
            notes=suggestion.notes,
            parameters=_count_parameters(suggestion),
        )
        record = Record(
            config=suggestion.config,
            data_fingerprint=suggestion.config.data.fingerprint or "",
            commit=self._commit,
        )
        self._tracking.start_trial(name, suggestion.fields, record.to_text())

    def catch_up(self, records: Iterable[TrialRecord]) -> None:
        """Write to MLflow what an earlier driver did not come to write of ended trials."""
        for record in records:
            self._tracking.write_whole(
                record,
                rows=self._root.read_rows(record.fingerprint),
                config=self._root.read_record_text(record.fingerprint),
            )

    def note_untrained(self, records: Iterable[TrialRecord]) -> None:
        """Enter trials that the study settled by itself."""
        for record in records:
            self.catch_up([record])
            self._watcher.ended(record)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note where a trial runs, or a row of its journal."""
        name = trial.config["fingerprint"]
        if "started" in result:
            here = result["started"]
            tags = {"device": here["device_name"], "device_kind": here["device_kind"]}
            self._tracking.describe_trial(
                name, tags | {"python": here["python"]} | here["versions"]
            )
        if "row" in result:
            self._add_row(name, result["row"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Settle a trial that returned, or that the scheduler stopped."""
        name = trial.config["fingerprint"]
        ending = trial.last_result.get("ending")
        if ending is None:
            stopped = self._stopper.was_stopped(name)
            ending = {"outcome": "stopped" if stopped else "interrupted"}
        self._settle(name, ending)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Settle a trial whose worker died and was not to be revived."""
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        lines = [line for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else "no word from it"
        outcome = "out_of_memory" if "OutOfMemoryError" in text else "failed"
        ending = {"outcome": outcome, "error": f"its worker died: {last}", "traceback": text}
        self._settle(trial.config["fingerprint"], ending)

    def _add_row(self, name: str, row: Row) -> None:
        step, value = int(row["step"]), float(row[METRIC])
        before = self._so_far[name]
        if step <= before.step:
            return  # told already: a worker that was revived tells its journal again
        record = replace(
            before,
            step=step,
            value=value if before.value is None else min(value, before.value),
            last_value=value,
            seconds=float(row["seconds"]),
            peak_memory_bytes=max(before.peak_memory_bytes or 0, row["peak_memory_bytes"]),
        )
        self._so_far[name] = record
        self._study.report(name, step=step, value=value)
        self._tracking.add_row(name, row)
        self._watcher.row(record, row)

    def _settle(self, name: str, ending: dict[str, Any]) -> None:
        if name not in self._so_far:
            return  # settled before Tune had an error of its own, and asked again
        content = self._so_far[name].to_json() | {"outcome": ending["outcome"]}
        content["error"] = ending.get("error", "")
        content["step"] = max(content["step"], ending.get("step", 0))
        record = TrialRecord.from_json(content)
        if record.outcome == "finished":
            self._root.keep_outcome(record, study=self._study.name)
        self._study.settle(record)
        self._tracking.end_trial(
            record,
            config=self._root.read_record_text(name),
            error_text=ending.get("traceback", ""),
        )
        self._watcher.ended(record)
        del self._so_far[name]


def _count_parameters(suggestion: Suggestion) -> int:
    with torch.device("meta"):
        return count_parameters(build_model(suggestion.config.model))
