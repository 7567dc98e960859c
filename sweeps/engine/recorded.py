"""Finding one trial's record again: on the storage root's disk, or in MLflow."""

from collections.abc import Sequence

from sweeps.engine.leaderboard import read_leaderboard
from sweeps.engine.places import resolve_database
from sweeps.engine.store import BEST, Root, find_study, open_optuna
from trainer.journal import Row
from trainer.record import Record, read_record


def find_on_disk(trial: str, root: Root, *, study_url: str) -> tuple[Record, Sequence[Row]]:
    """Return a trial's record and journal, by its fingerprint or as `best:SWEEP`.

    Raises ValueError when there is no such trial, or its record is damaged.
    """
    fingerprint = trial
    if trial.startswith(BEST):
        url = resolve_database("study-storage", study_url, relative_to=root.path, must_exist=True)
        board = read_leaderboard(find_study(open_optuna(url), trial.removeprefix(BEST)))
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
    from sweeps.engine.mlflow_runs import find_trial_run, open_client, read_run

    with open_client(tracking_uri) as client:
        run = find_trial_run(client, trial)
        text, rows = read_run(client, run)
    return Record.from_text(text, source=f"MLflow run {run.info.run_id}"), rows
