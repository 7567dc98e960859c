"""What happens to trials, told to all who must know: the study, MLflow, and whoever watches.

Tune calls back here for every report and every end, with the result that stopped a trial and the
error that ended it, which its searchers do not get to see.
"""

import functools
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from ray import tune
from ray.tune.experiment import Trial

from sweeps.engine.outcomes import OUTGROWN, TrialRecord
from sweeps.engine.placer import Placer
from sweeps.engine.root import Root
from sweeps.engine.stopping import SweepStopper
from sweeps.engine.study import Suggestion, SweepStudy
from sweeps.engine.tracking import Tracking
from trainer.config import METRIC
from trainer.journal import Row
from trainer.model_config import ModelConfig
from trainer.models import build_model, count_parameters

_LOW_MEMORY = "killed due to the node running low on memory"
"""What Ray says of an actor that its memory monitor has killed."""
_OUT_OF_MEMORY = ("OutOfMemoryError", _LOW_MEMORY)
"""In the text of an error, torch's or Ray's: any other death is a crash."""
_MACHINE_LOST = ("its node has died", "is unavailable: The actor is temporarily unavailable")
"""In the text of an error, Ray's: the second before the cluster has given up the machine."""

_FORGIVEN = {"worker": 3, "machine": 30}
"""Deaths of each trial: spot machines are taken back every few hours, which is not its fault."""

logger = logging.getLogger(__name__)


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
        placer: Placer,
    ) -> None:
        self._study = study
        self._stopper = stopper
        self._tracking = tracking
        self._watcher = watcher
        self._root = root
        self._placer = placer
        self._so_far: dict[str, TrialRecord] = {}
        self._deaths: dict[str, Counter[str]] = {}
        self.problem = ""
        """What a trial has met that all others would; empty while there is none."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its parts to restore them, and a sweep never does."""
        return {}

    @property
    def has_open(self) -> bool:
        """Whether a trial has begun and not ended: it may yet have to be placed again."""
        return bool(self._so_far)

    def begin(self, suggestion: Suggestion) -> None:
        """Open the books for a trial that is handed to Tune; they stay open if that comes again."""
        name = suggestion.fingerprint
        if name in self._so_far:
            return
        self._so_far[name] = TrialRecord(
            fingerprint=name,
            outcome="interrupted",
            params=suggestion.fields,
            notes=suggestion.notes,
            parameters=_count_parameters(suggestion.config.model),
            restarts=self._study.restarts(name),
        )
        self._tracking.start_trial(name, suggestion.fields, suggestion.record.to_text())

    def catch_up(self, records: Iterable[TrialRecord]) -> None:
        """Write to MLflow what an earlier driver did not come to write of ended trials."""
        for record in records:
            read = functools.partial(self._root.read_journey, record.fingerprint, until=record.step)
            self._tracking.write_whole(record, read=read)

    def note_untrained(self, records: Iterable[TrialRecord]) -> None:
        """Enter trials that the study settled by itself."""
        for record in records:
            self.catch_up([record])
            self._watcher.ended(record)

    def leave_open(self) -> None:
        """Enter as interrupted the trials that wait to be placed again, as a sweep ends."""
        for name in list(self._so_far):
            self._settle(name, {"outcome": "interrupted"})

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
        if "waits_for" in result:
            logger.warning("trial %s is being trained by another sweep: waiting for it", name)
        if "row" in result:
            if "peak_bytes" in result:  # not where a worker tells what is in the journal already
                self._placer.note_peak(name, result["peak_bytes"])
            self._add_row(name, result["row"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Settle a trial that returned, or that the scheduler stopped."""
        name = trial.config["fingerprint"]
        ending = trial.last_result.get("ending")
        if ending is not None and ending["outcome"] == OUTGROWN:
            self._place_again(name, ending["needed_bytes"])
            return
        if ending is None:
            was_stopped = self._stopper.stopped_at(name) is not None
            ending = {"outcome": "stopped" if was_stopped else "interrupted"}
        self._settle(name, ending)
        if ending.get("stops_sweep"):
            self.problem = ending["error"]

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Count a worker whose machine was taken back with notice: of such, Tune itself starts the
        trial again."""
        self._note_death(trial.config["fingerprint"], _death_of(trial))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Let a trial whose worker died go on with another, unless too many have.

        Not left to Tune: it gives up at once a trial that a worker was to take up as it died.
        """
        name = trial.config["fingerprint"]
        if not self._placer.is_placed(name):
            return  # it ended before Tune had an error of its own
        death = _death_of(trial)
        if death.is_out_of_memory or not self._forgives(name, death):
            self._settle(name, death.ending())
            return
        self._note_death(name, death)
        self._placer.lose(name)

    def _forgives(self, name: str, death: "_Death") -> bool:
        deaths = self._deaths.setdefault(name, Counter())
        deaths[death.kind] += 1
        return deaths[death.kind] <= _FORGIVEN[death.kind]

    def _note_death(self, name: str, death: "_Death") -> None:
        before = self._so_far[name]
        self._so_far[name] = replace(before, restarts=before.restarts + 1)
        self._study.keep_restarts(name, before.restarts + 1)
        logger.warning("trial %s goes on from its checkpoint: %s", name, death.line)

    def _place_again(self, name: str, needed_bytes: int) -> None:
        self._study.keep_need(name, needed_bytes)
        request = self._placer.outgrow(name, needed_bytes)
        logger.warning(
            "trial %s goes on from its checkpoint with %g of a GPU: it outgrew its share",
            name,
            request.gpus,
        )

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
        # Before the value: a kill between the two must not let a stopped trial train on.
        if self._stopper.stopped_at(name) == step:
            self._study.keep_stop(name, step=step)
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
            record = self._keep_finished(record)
        self._study.settle(record)
        self._placer.give_back(name)
        self._tracking.end_trial(
            record,
            config=self._root.read_record_text(name),
            error_text=ending.get("traceback", ""),
        )
        self._watcher.ended(record)
        del self._so_far[name]
        self._deaths.pop(name, None)

    def _keep_finished(self, record: TrialRecord) -> TrialRecord:
        """Note a finished trial for other sweeps, unless one of them trained it meanwhile."""
        found = self._root.find_outcome(record.fingerprint)
        if found is not None and found[0] != self._study.name:
            return replace(record, taken_over_from=found[0])
        self._root.keep_outcome(record, study=self._study.name)
        return record


@dataclass(frozen=True, kw_only=True)
class _Death:
    """What Ray says of a worker that died."""

    text: str

    @property
    def is_out_of_memory(self) -> bool:
        return any(said in self.text for said in _OUT_OF_MEMORY)

    @property
    def kind(self) -> str:
        """Return what is gone: the worker, or all of its machine."""
        return "machine" if any(said in self.text for said in _MACHINE_LOST) else "worker"

    @property
    def line(self) -> str:
        lines = [line for line in self.text.splitlines() if line.strip()]
        return f"its worker died: {lines[-1].strip() if lines else 'no word from it'}"

    def ending(self) -> dict[str, Any]:
        outcome = "out_of_memory" if self.is_out_of_memory else "failed"
        return {"outcome": outcome, "error": self.line, "traceback": self.text}


def _death_of(trial: Trial) -> _Death:
    """Return the last of a trial's errors: Tune adds each to one file."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path else ""
    last = text.rpartition("Failure # ")[2]
    # The memory monitor goes on with the command lines of all processes of the machine.
    low_memory = [line for line in last.splitlines() if _LOW_MEMORY in line]
    return _Death(text=low_memory[0] if low_memory else last)


@functools.lru_cache(maxsize=1024)
def _count_parameters(model: ModelConfig) -> int:
    with torch.device("meta"):
        return count_parameters(build_model(model))
