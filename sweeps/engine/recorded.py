"""Finding one trial's record again: on the storage root's disk, or in MLflow."""

from collections.abc import Sequence

from sweeps.engine.leaderboard import read_leaderboard
from sweeps.engine.places import Places
from sweeps.engine.store import BEST, find_study, open_optuna
from trainer.journal import Row
from trainer.record import Record, read_record


def find_record(trial: str, places: Places) -> tuple[Record, Sequence[Row]]:
    """Return a trial's record and curve, by its fingerprint or as `best:SWEEP`.

    They are the storage root's, or MLflow's where a tracking URI is given. Raises ValueError when
    there is no such trial, or its record is damaged.
    """
    if places.tracking_uri is not None:
        return _find_in_mlflow(trial, places.tracking_url())
    root = places.root()
    fingerprint = find_fingerprint(trial, places)
    return read_record(root.trial_folder(fingerprint)), root.read_rows(fingerprint)


def find_fingerprint(trial: str, places: Places) -> str:
    """Return the fingerprint that `trial` is or, as `best:SWEEP`, means in the study."""
    if not trial.startswith(BEST):
        return trial
    board = read_leaderboard(find_study(open_optuna(places.study_url()), trial.removeprefix(BEST)))
    with_reports = [entry for entry in board["trials"] if entry["value"] is not None]
    if not with_reports:
        raise ValueError(f"trial={trial}; must be of a sweep with a trial that has a report")
    return str(with_reports[0]["fingerprint"])


def _find_in_mlflow(trial: str, tracking_uri: str) -> tuple[Record, Sequence[Row]]:
    from sweeps.engine.mlflow_runs import find_trial_run, open_client, read_run

    with open_client(tracking_uri) as client:
        run = find_trial_run(client, trial)
        text, rows = read_run(client, run)
    return Record.from_text(text, source=f"MLflow run {run.info.run_id}"), rows
