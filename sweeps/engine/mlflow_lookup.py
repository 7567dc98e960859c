"""Runs of sweeps and trials, found in MLflow and read back."""

import re
import tempfile
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sweeps.engine.mlflow_runs import CONFIG_ARTIFACT, FINAL_METRICS
from sweeps.engine.root import BEST, check_fingerprint
from trainer.journal import Row


def find_sweep_run(client: MlflowClient, sweep: str | None) -> Run:
    """Return the parent run of a sweep, the one that ran last of those that the name fits.

    Raises ValueError when there is none.
    """
    if sweep is not None and not re.fullmatch(r"[\w.-]+(@[0-9a-f]{8})?", sweep):
        raise ValueError(f"sweep={sweep}; must be a sweep's name, or name@setting")
    name = None if sweep is None else sweep.partition("@")[0]
    known = [e for e in client.search_experiments() if name in (None, e.name)]
    ids = [experiment.experiment_id for experiment in known]
    setting = f" and tags.setting = '{sweep}'" if sweep is not None and "@" in sweep else ""
    runs = client.search_runs(ids, f"tags.kind = 'sweep'{setting}") if ids else []
    if not runs:
        raise ValueError(f"sweep={sweep or 'any'}; must be one that this MLflow store knows")
    return max(runs, key=lambda run: int(run.data.tags["turn"]))


def find_trial_run(client: MlflowClient, trial: str) -> Run:
    """Return the run of a trial, by its fingerprint or as `best:SWEEP`.

    Raises ValueError when there is none.
    """
    return find_trial_runs(client, trial)[0]


def find_trial_runs(client: MlflowClient, trial: str) -> list[Run]:
    """Return the runs of a trial, one for each sweep that has it, or those of the finished trials
    of the sweep in `best:SWEEP`, best first.

    Raises ValueError when there is none.
    """
    if trial.startswith(BEST):
        parent = find_sweep_run(client, trial.removeprefix(BEST))
        ids = [parent.info.experiment_id]
        family = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
        wanted = f"{family} and tags.outcome = 'finished'"
    else:
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        wanted = f"tags.fingerprint = '{check_fingerprint(trial)}'"
    found = client.search_runs(ids, wanted, order_by=["metrics.value ASC"])
    if not found:
        raise ValueError(f"trial={trial}; must be a trial that this MLflow store knows")
    return list(found)


def read_run(client: MlflowClient, run: Run) -> tuple[str, list[Row]]:
    """Return a trial's record as text, and its rows as far as MLflow keeps them."""
    # Not mlflow.artifacts.load_text: it would ask the global tracking URI's server for the file.
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run.info.run_id, CONFIG_ARTIFACT, folder)
        text = Path(path).read_text(encoding="utf-8")
    rows: dict[int, Row] = {}
    for name in run.data.metrics.keys() - FINAL_METRICS:
        for point in client.get_metric_history(run.info.run_id, name):
            rows.setdefault(point.step, {"step": point.step})[name] = point.value
    return text, [rows[step] for step in sorted(rows)]
