"""The best trial of a sweep is a model in MLflow: published when the sweep ends, fetched by trial.

In the registry, trials of a sweep are versions of a model that bears the sweep's name. The alias
`best` means the best trial of the setting that ran last, the alias of a setting its own best:
`models:/lr_momentum@best`, `models:/lr_momentum@1f3a5b7c`.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from optuna.study import Study

from sweeps.engine.mlflow_lookup import find_trial_runs
from sweeps.engine.mlflow_models import download, find_models, log_model, register
from sweeps.engine.mlflow_store import open_client
from sweeps.engine.outcomes import TrialRecord, rank
from sweeps.engine.root import Root
from sweeps.engine.store import read_facts, read_run_ids
from sweeps.engine.study_records import read_records
from trainer.trained import read_trained

BEST_ALIAS = "best"

logger = logging.getLogger(__name__)


def publish_best(
    study: Study, *, root: Root, tracking_uri: str, show: Callable[[str], None]
) -> None:
    """Make the best finished trial of a study a model in MLflow, unless it is one already.

    Never fails a sweep: what a store does not take costs one warning, and the next call writes it.
    """
    finished = [record for record in rank(read_records(study)) if record.outcome == "finished"]
    if not finished:
        return
    try:
        _publish(finished[0], study, root=root, tracking_uri=tracking_uri, show=show)
    except ValueError as error:
        logger.warning(
            "trial %s is not yet a model in MLflow, the same command tries again: %s",
            finished[0].fingerprint,
            error,
        )


def fetch(trial: str, tracking_uri: str, *, cache: Path) -> Path:
    """Return the folder of a trial's net, downloaded from MLflow into the cache.

    `best:SWEEP` is the best trial that has a model. Raises ValueError when there is none.
    """
    with open_client(tracking_uri) as client:
        runs = find_trial_runs(client, trial)
        models = find_models(client, runs)
        best = next((models[r.info.run_id] for r in runs if r.info.run_id in models), None)
        if best is None:
            raise ValueError(
                f"trial={trial}; must be one that is a model in this MLflow store: the best of a "
                "sweep is; others have their weights in the storage root alone"
            )
        return download(best, tracking_uri, cache=cache)


def _publish(
    best: TrialRecord,
    study: Study,
    *,
    root: Root,
    tracking_uri: str,
    show: Callable[[str], None],
) -> None:
    """Do what is missing. Raises ValueError for whatever goes wrong."""
    with open_client(tracking_uri) as client:
        run_id = read_run_ids(study).get(best.fingerprint)
        if run_id is None:
            raise ValueError("it has no run there yet")
        run = client.get_run(run_id)
        model = find_models(client, [run]).get(run_id)
        if model is None:
            trained = read_trained(root.fetch(best.fingerprint, weights=True))
            trained.load(torch.device("cpu"))  # raises for weights that are damaged
            model = log_model(client, run, trained, step=best.step)
        facts = read_facts(study)
        name = facts["sweep"]
        if register(client, model, name=name, aliases=(BEST_ALIAS, facts["setting"])):
            show(f"best trial {best.fingerprint} is a model in MLflow: models:/{name}@{BEST_ALIAS}")
