"""Finding one trial again, its record or its net: on the storage root's disk, or in MLflow."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.engine.leaderboard import read_leaderboard
from sweeps.engine.places import Places, resolve_path
from sweeps.engine.root import BEST, is_fingerprint
from sweeps.engine.store import find_study, open_optuna
from trainer.checkpoint import BEST as WEIGHTS
from trainer.journal import Row
from trainer.record import Record, read_record
from trainer.trained import Trained, read_trained

logger = logging.getLogger(__name__)


def find_record(trial: str, places: Places) -> tuple[Record, Sequence[Row]]:
    """Return a trial's record and curve, by its fingerprint or as `best:SWEEP`.

    They are the storage root's, or MLflow's where a tracking URI is given. Raises ValueError when
    there is no such trial, or its record is damaged.
    """
    if places.tracking_uri is not None:
        return _find_in_mlflow(trial, places.tracking_url())
    root = places.root()
    fingerprint = find_fingerprint(trial, places)
    return read_record(root.fetch(fingerprint)), root.read_rows(fingerprint)


def find_trained(trial: str, places: Places) -> Trained:
    """Return a trained net, by its trial's fingerprint, as `best:SWEEP` (of the trials that have
    weights), or by the folder that `unshift export` wrote.

    A trial's is the storage root's, or MLflow's where a tracking URI is given. Raises ValueError
    when there is none.
    """
    if not (is_fingerprint(trial) or trial.startswith(BEST)):
        return read_trained(_exported_folder(trial, places))
    if places.tracking_uri is not None:
        from sweeps.engine.published import fetch

        cache = places.root(create=True).cache
        return read_trained(fetch(trial, places.tracking_url(), cache=cache))
    root = places.root()
    if is_fingerprint(trial):
        return read_trained(root.fetch(trial, weights=True))
    for entry in _rank_for_best(trial, places):
        folder = root.fetch(entry["fingerprint"], weights=True)
        if (folder / WEIGHTS).is_file():
            _warn_unless_finished(trial, entry)
            return read_trained(folder)
    raise ValueError(f"trial={trial}; must be of a sweep whose weights are in {root.trials}")


def find_fingerprint(trial: str, places: Places) -> str:
    """Return the fingerprint that `trial` is or, as `best:SWEEP`, means in the study."""
    if not trial.startswith(BEST):
        return trial
    best = _rank_for_best(trial, places)[0]
    _warn_unless_finished(trial, best)
    return str(best["fingerprint"])


def _rank_for_best(trial: str, places: Places) -> list[dict[str, Any]]:
    """Return the leaderboard's entries that `best:SWEEP` may mean, best first: finished trials, and
    while there are none, those that were validated before they were stopped or interrupted."""
    board = read_leaderboard(find_study(open_optuna(places.study_url()), trial.removeprefix(BEST)))
    validated = [entry for entry in board["trials"] if entry["value"] is not None]
    finished = [entry for entry in validated if entry["outcome"] == "finished"]
    found = finished or [e for e in validated if e["outcome"] in ("stopped", "interrupted")]
    if not found:
        raise ValueError(
            f"trial={trial}; must be of a sweep with a trial that finished, or that had a report "
            "before it was stopped or interrupted"
        )
    return found


def _warn_unless_finished(trial: str, entry: dict[str, Any]) -> None:
    if entry["outcome"] != "finished":
        told = entry["fingerprint"], entry["outcome"], entry["step"]
        logger.warning("%s: no trial has finished; this is %s, %s at step %d", trial, *told)


def _exported_folder(trial: str, places: Places) -> Path:
    folder = resolve_path("trial", trial, relative_to=places.relative_to)
    if not folder.is_dir():
        allowed = f"16 hex digits, {BEST}SWEEP, or a folder that unshift export wrote"
        raise ValueError(f"trial={trial}; must be {allowed}")
    return folder


def _find_in_mlflow(trial: str, tracking_uri: str) -> tuple[Record, Sequence[Row]]:
    from sweeps.engine.mlflow_lookup import find_trial_run, read_run
    from sweeps.engine.mlflow_store import open_client

    with open_client(tracking_uri) as client:
        run = find_trial_run(client, trial)
        text, rows = read_run(client, run)
    return Record.from_text(text, source=f"MLflow run {run.info.run_id}"), rows
