"""What a study holds of its trials, read back: by whoever drives it, ranks it or looks at it."""

from dataclasses import replace

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sweeps.engine.outcomes import TrialRecord, rank
from sweeps.engine.store import find_studies, open_optuna

RECORD, FIELDS, NOTES, FINGERPRINT = "record", "fields", "notes", "fingerprint"
"""A trial's attributes."""


def read_records(study: Study) -> list[TrialRecord]:
    """Return a record of every trial of a study, unfinished ones as interrupted.

    Raises ValueError naming a trial whose record is damaged.
    """
    records = []
    for frozen in study.get_trials(deepcopy=False):
        record = read_record(frozen)
        if record is not None and record.is_ended:
            records.append(record)
        elif frozen.state == TrialState.RUNNING and FINGERPRINT in frozen.user_attrs:
            records.append(_unfinished(frozen, record))
    return records


def read_record(frozen: FrozenTrial) -> TrialRecord | None:
    """Return what a trial's record says, None where it has none.

    Raises ValueError naming the trial where it is damaged.
    """
    known = frozen.user_attrs.get(RECORD)
    try:
        return None if known is None else TrialRecord.from_json(known)
    except ValueError as error:
        raise ValueError(f"record of the study's trial {frozen.number}: {error}") from error


def read_standings(study_url: str) -> list[list[TrialRecord]]:
    """Return the records of every study of a store, each study's from best to worst."""
    return [rank(read_records(study)) for study in find_studies(open_optuna(study_url))]


def _unfinished(frozen: FrozenTrial, before: TrialRecord | None) -> TrialRecord:
    """Return how far a trial came, by its curve; what else is known is from its interruption."""
    curve = frozen.intermediate_values
    last = max(curve, default=0)
    fingerprint = frozen.user_attrs[FINGERPRINT]
    return replace(
        before or TrialRecord(fingerprint=fingerprint, outcome="interrupted"),
        params=frozen.user_attrs[FIELDS],
        notes=frozen.user_attrs.get(NOTES, {}),
        step=last,
        value=min(curve.values(), default=None),
        last_value=curve.get(last),
    )
