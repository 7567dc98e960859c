"""A sweep's study: which trials it has, what each is told, and what to try next.

The truth between Ray and Optuna, without Ray: `finished` is COMPLETE; `stopped` is PRUNED with its
intermediate values; `diverged` and `out_of_memory` are PRUNED and infeasible; `failed` is FAIL;
a trial that may go on (`interrupted`) stays RUNNING and is taken up first by the next driver.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.study import Study
from optuna.trial import Trial, TrialState

from cluster.commit import UNKNOWN
from sweeps.engine.outcomes import INFEASIBLE, TrialRecord
from sweeps.engine.sampling import SweepSampler
from sweeps.engine.study_records import FIELDS, FINGERPRINT, NOTES, RECORD, read_record
from trainer.config import TrainConfig
from trainer.losses.foreign import pin_weights
from trainer.record import Record

logger = logging.getLogger(__name__)

QUASI_RANDOM_TRIALS = 6
"""Start-up points after the known ones, before TPE takes over."""

DUPLICATES_UNTIL_EXHAUSTED = 20
"""So many suggestions in a row that were recorded already mean that the space has no more."""

_DUPLICATE = "duplicate_of"
_STOP, _RESTARTS, _RAN_OUT_ON = "stopped_at", "restarts", "ran_out_of_memory_on"
_OUTGREW_ON, _NEEDS = "outgrew_its_share_on", "needs_bytes"

Space = Callable[[Trial], Mapping[str, object]]
Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A trial to train: its varied fields, and its record, with all of it and its name."""

    record: Record
    fields: Fields
    notes: dict[str, str]
    """What tables show of it instead of its fields; empty: nothing else."""

    @property
    def fingerprint(self) -> str:
        """Return its name."""
        return self.record.fingerprint

    @property
    def config(self) -> TrainConfig:
        """Return all of it."""
        return self.record.config


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a study needs to know of its sweep."""

    space: Space
    known_points: Sequence[Mapping[str, object]]
    base: Mapping[str, object]
    """The fields that all trials share."""
    data_fingerprint: str
    trials: int
    """How many trials to have in the end, known points included."""
    seed: int
    commit: str = UNKNOWN
    """What the trials are trained by."""
    annotate: Callable[[Mapping[str, object]], Mapping[str, str]] | None = None
    """What tables show of a trial by column, from its varied fields."""
    find_misfit: Callable[[TrainConfig], str] = lambda config: ""
    """Why a trial cannot fit the machines there are; empty when it can."""
    note_out_of_memory: Callable[[TrainConfig], None] = lambda config: None
    """Told of each trial that ran out of memory on `device`: its like will not fit either."""
    note_peak: Callable[[TrainConfig, int], None] = lambda config, peak_bytes: None
    """Told what each trial took that outgrew its share of `device`."""
    device: str = ""

    def configure(self, fields: Mapping[str, object]) -> TrainConfig:
        """Return a trial whole, by its varied fields.

        Raises ValueError for what cannot be built, and for a loss whose weights are not there.
        """
        config = TrainConfig.from_fields({**self.base, **fields})
        return replace(config, loss=pin_weights(config.loss))


class SweepStudy:
    """One Optuna study in the words of this project."""

    def __init__(
        self,
        study: Study,
        plan: SweepPlan,
        *,
        find_finished: Callable[[str], TrialRecord | None] = lambda fingerprint: None,
    ) -> None:
        """Continue a study. `find_finished` knows trials that other sweeps have trained."""
        self._study = study
        self._plan = plan
        self._find_finished = find_finished
        self._study.sampler = SweepSampler(
            plan.seed, startup=len(plan.known_points) + QUASI_RANDOM_TRIALS
        )
        self._records: dict[str, TrialRecord] = {}
        self._running: dict[str, Trial] = {}
        self._to_resume: list[int] = []
        self._untrained: list[TrialRecord] = []
        self._duplicates_in_a_row = 0
        self._read_history()
        for point in plan.known_points:
            self._study.enqueue_trial(dict(point), skip_if_exists=True)

    @property
    def name(self) -> str:
        """Return the study's name."""
        return self._study.study_name

    def next(self) -> Suggestion | None:
        """Return the next trial to train, unfinished ones first; None when there are enough.

        Known results are told on the way and not trained again: this sweep's own do not count
        toward the number of trials, another sweep's do.
        """
        while self._to_resume:
            suggestion = self._admit(Trial(self._study, self._to_resume.pop(0)))
            if suggestion is not None:
                return suggestion
        while self._count() < self._plan.trials:
            if self._duplicates_in_a_row >= DUPLICATES_UNTIL_EXHAUSTED:
                logger.warning(
                    "the space is exhausted: %d suggestions in a row were recorded already",
                    self._duplicates_in_a_row,
                )
                return None
            suggestion = self._admit(self._study.ask())
            if suggestion is not None:
                return suggestion
        return None

    @property
    def left(self) -> int:
        """Return how many trials are still to come."""
        return max(0, self._plan.trials - self._count()) + len(self._to_resume)

    def report(self, fingerprint: str, *, step: int, value: float) -> None:
        """Tell a running trial's validation at a step; one told before is left alone."""
        trial = self._running[fingerprint]
        # What was read when the trial was taken up, and told since: nobody else tells it anything.
        if step not in trial._cached_frozen_trial.intermediate_values:
            trial.report(value, step)

    def keep_stop(self, fingerprint: str, *, step: int) -> None:
        """Note that the scheduler has ended a running trial at a step, before it is settled."""
        self._running[fingerprint].set_user_attr(_STOP, step)

    def keep_restarts(self, fingerprint: str, restarts: int) -> None:
        """Note how often a running trial's worker has died."""
        self._running[fingerprint].set_user_attr(_RESTARTS, restarts)

    def restarts(self, fingerprint: str) -> int:
        """Return how often a running trial's worker has died, under earlier drivers too."""
        return int(self._running[fingerprint].user_attrs.get(_RESTARTS, 0))

    def keep_need(self, fingerprint: str, needed_bytes: int) -> None:
        """Note what a running trial needs that outgrew its share, for this device's next driver."""
        self._running[fingerprint].set_user_attr(_NEEDS, needed_bytes)
        self._running[fingerprint].set_user_attr(_OUTGREW_ON, self._plan.device)

    def settle(self, record: TrialRecord) -> None:
        """Tell how a trained trial ended; an interrupted one stays open for the next driver."""
        if record.outcome == "out_of_memory":
            trial = self._running[record.fingerprint]
            trial.set_user_attr(_RAN_OUT_ON, self._plan.device)
            self._note_out_of_memory(trial.user_attrs)
        self._settle(record)

    def settled(self) -> list[TrialRecord]:
        """Return the records of all trials that have ended, those of earlier drivers included."""
        return list(self._records.values())

    def take_untrained(self) -> list[TrialRecord]:
        """Return what was settled without training since the last call: trials taken over from
        other sweeps, and configurations that cannot be built."""
        untrained, self._untrained = self._untrained, []
        return untrained

    def curves(self) -> Iterator[tuple[str, dict[int, float]]]:
        """Yield (fingerprint, {step: validation}) of every trial there is."""
        for frozen in self._study.get_trials(deepcopy=False):
            fingerprint = frozen.user_attrs.get(FINGERPRINT)
            if fingerprint is not None and _DUPLICATE not in frozen.user_attrs:
                yield fingerprint, dict(frozen.intermediate_values)

    def stops(self) -> dict[str, int]:
        """Return the step at which the scheduler ended a trial, by fingerprint."""
        noted = (frozen.user_attrs for frozen in self._study.get_trials(deepcopy=False))
        return {each[FINGERPRINT]: each[_STOP] for each in noted if _STOP in each}

    def _settle(self, record: TrialRecord) -> None:
        trial = self._running[record.fingerprint]
        trial.set_user_attr(RECORD, record.to_json())
        if record.is_ended:
            self._tell(trial, record)
            del self._running[record.fingerprint]
        self._records[record.fingerprint] = record

    def _read_history(self) -> None:
        for frozen in self._study.get_trials(deepcopy=False):
            record = read_record(frozen)
            if frozen.user_attrs.get(_RAN_OUT_ON) == self._plan.device:
                self._note_out_of_memory(frozen.user_attrs)
            if frozen.user_attrs.get(_OUTGREW_ON) == self._plan.device:
                config = self._plan.configure(frozen.user_attrs[FIELDS])
                self._plan.note_peak(config, frozen.user_attrs[_NEEDS])
            if frozen.state == TrialState.RUNNING and not (record and record.is_ended):
                self._to_resume.append(frozen._trial_id)
            elif record is not None:
                if frozen.state == TrialState.RUNNING:  # its driver died before it could tell
                    self._tell(Trial(self._study, frozen._trial_id), record)
                self._records[record.fingerprint] = record

    def _note_out_of_memory(self, attributes: Mapping[str, Any]) -> None:
        self._plan.note_out_of_memory(self._plan.configure(attributes[FIELDS]))

    def _count(self) -> int:
        unsettled = sum(name not in self._records for name in self._running)
        return len(self._records) + unsettled + len(self._to_resume)

    def _admit(self, trial: Trial) -> Suggestion | None:
        """Name a trial and let it run, or tell it at once what is known of it."""
        fields = dict(self._plan.space(trial))
        try:
            config = self._plan.configure(fields)
        except ValueError as error:
            self._refuse(trial, fields, error)
            return None
        record = Record(
            config=config,
            data_fingerprint=self._plan.data_fingerprint,
            commit=self._plan.commit,
        )
        fingerprint = record.fingerprint
        if fingerprint in self._running or fingerprint in self._records:
            self._tell_duplicate(trial, fingerprint)
            return None
        self._duplicates_in_a_row = 0
        notes = {} if self._plan.annotate is None else dict(self._plan.annotate(fields))
        for name, value in ((FIELDS, fields), (NOTES, notes), (FINGERPRINT, fingerprint)):
            trial.set_user_attr(name, value)
        self._running[fingerprint] = trial
        known = self._find_finished(fingerprint) or self._find_misfit(fingerprint, config)
        if known is not None:
            self._settle_untrained(replace(known, params=fields, notes=notes))
            return None
        return Suggestion(record=record, fields=fields, notes=notes)

    def _find_misfit(self, fingerprint: str, config: TrainConfig) -> TrialRecord | None:
        reason = self._plan.find_misfit(config)
        if not reason:
            return None
        return TrialRecord(fingerprint=fingerprint, outcome="out_of_memory", error=reason)

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        if record.outcome == "finished":
            self._study.tell(trial, record.value)
        elif record.outcome == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            if record.outcome in INFEASIBLE:
                trial.set_constraint(record.outcome, 1.0)
            self._study.tell(trial, state=TrialState.PRUNED)

    def _refuse(self, trial: Trial, fields: Fields, error: ValueError) -> None:
        """Record a configuration that cannot be built: the space's fault, not the sweep's end."""
        name = f"refused-{trial.number}"
        self._running[name] = trial
        self._settle_untrained(
            TrialRecord(fingerprint=name, outcome="failed", params=fields, error=str(error))
        )

    def _settle_untrained(self, record: TrialRecord) -> None:
        self._settle(record)
        self._untrained.append(record)

    def _tell_duplicate(self, trial: Trial, fingerprint: str) -> None:
        self._duplicates_in_a_row += 1
        trial.set_user_attr(_DUPLICATE, fingerprint)
        record = self._records.get(fingerprint)
        if record is None or not record.is_ended:
            self._study.tell(trial, state=TrialState.FAIL)  # nothing to learn from it yet
            return
        if record.last_value is not None and record.outcome != "finished":
            trial.report(record.last_value, record.step)
        self._tell(trial, record)
