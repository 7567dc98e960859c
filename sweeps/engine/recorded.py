"""Finding one trial's record again: on the storage root's disk, or in MLflow."""

from collections.abc import Sequence

from sweeps.engine.leaderboard import read_leaderboard
from sweeps.engine.store import Root, find_study, open_optuna
from trainer.journal import Row
from trainer.record import Record, read_record

BEST = "best:"


def find_on_disk(
    trial: str, root: Root, *, study_storage: str | None
) -> tuple[Record, Sequence[Row]]:
    """Return a trial's record and journal, by its fingerprint or as `best:SWEEP`.

    Raises ValueError when there is no such trial, or its record is damaged.
    """
    fingerprint = trial
    if trial.startswith(BEST):
        storage = open_optuna(study_storage or root.study_url)
        board = read_leaderboard(find_study(storage, trial.removeprefix(BEST)))
        with_reports = [entry for entry in board["trials"] if entry["value"] is not None]
        if not with_reports:
            raise ValueError(f"trial={trial}; must be of a sweep with a trial that has a report")
        fingerprint = with_reports[0]["fingerprint"]
    folder = root.trial_folder(fingerprint)
    return read_record(folder), root.read_rows(fingerprint)


def find_in_mlflow(trial: str, tracking_uri: str) -> tuple[Record, Sequence[Row]]:
    """Return a trial's record and curve as MLflow keeps them, likewise.

    Raises ValueError when it has no such trial.
    """
    from sweeps.engine.tracking import find_trial_run, read_run

    run_id = find_trial_run(tracking_uri, trial)
    text, rows = read_run(tracking_uri, run_id)
    return Record.from_text(text, source=f"MLflow run {run_id}"), rows
