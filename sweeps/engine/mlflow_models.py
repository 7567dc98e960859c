"""A trained net as a model in MLflow: a pyfunc "from code" with safetensors weights, of a run.

All goes through a client that is handed in: MLflow's active run and global URIs play no part.
"""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

import trainer
from trainer.checkpoint import BEST as WEIGHTS
from trainer.config import SAMPLE_RATE_HZ
from trainer.record import FILE_NAME as RECORD
from trainer.trained import Trained

_CODE = Path(__file__).with_name("model_code.py")
_IMPORTED = ("mlflow", "numpy", "safetensors", "torch")
"""Packages that a model's code needs."""

_CLIPS = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
_EXAMPLE_SAMPLES = 2048


def find_models(client: MlflowClient, runs: Iterable[Run]) -> dict[str, LoggedModel]:
    """Return the whole models of runs, by run id."""
    wanted = {run.info.run_id: run.info.experiment_id for run in runs}
    return {
        str(model.source_run_id): model
        for experiment_id in set(wanted.values())
        for model in _search(client, experiment_id)
        if model.source_run_id in wanted and model.status == LoggedModelStatus.READY
    }


def log_model(client: MlflowClient, run: Run, trained: Trained, *, step: int) -> LoggedModel:
    """Make a trained net the output of its trial's run at a step, and return the model."""
    _delete_partial(client, run)
    run_id = run.info.run_id
    model = client.create_logged_model(
        run.info.experiment_id,
        name=trained.record.fingerprint,
        source_run_id=run_id,
        tags={name: run.data.tags[name] for name in ("study", "setting") if name in run.data.tags},
        params=run.data.params,
        model_type=trained.record.config.model.family,
    )
    with tempfile.TemporaryDirectory(prefix="unshift-model-") as folder:
        _save(Path(folder) / "model", trained, model)
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    # The same points once more, now also the model's: its page and table show the validation.
    points = client.get_metric_history(run_id, "value")
    ours = [_of_model(point, model) for point in points]
    client.log_batch(run_id, metrics=ours, synchronous=True)
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def register(
    client: MlflowClient, model: LoggedModel, *, name: str, aliases: Iterable[str]
) -> bool:
    """Give a model the aliases in the registry; return whether it had to be entered first."""
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{model.source_run_id}'")
    known = [each for each in versions if each.source == model.artifact_location]
    number = known[0].version if known else _enter(client, model, name)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, number)
    return not known


def download(model: LoggedModel, tracking_uri: str, *, cache: Path) -> Path:
    """Return the folder of a model's net in the cache, fetched when it is not there yet.

    Raises ValueError for a model of a name that would lead out of the cache.
    """
    if not re.fullmatch(r"[\w-]+", model.model_id):
        raise ValueError(f"model={model.model_id!r}; must be made of letters, digits, _ and -")
    folder = cache / "models" / model.model_id
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{model.model_id}-{uuid.uuid4().hex}.partial")
    try:
        uri = f"{model.artifact_location}/artifacts"
        fetched = mlflow.artifacts.download_artifacts(
            artifact_uri=uri, dst_path=str(partial), tracking_uri=tracking_uri
        )
        os.replace(fetched, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _search(client: MlflowClient, experiment_id: str) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = client.search_logged_models([experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _delete_partial(client: MlflowClient, run: Run) -> None:
    """Delete what an earlier attempt that was interrupted left of a run's model."""
    for model in _search(client, run.info.experiment_id):
        if model.source_run_id == run.info.run_id and model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)


def _save(folder: Path, trained: Trained, model: LoggedModel) -> None:
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in _IMPORTED]
    mlflow.pyfunc.save_model(
        folder,
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            model_uuid=model.model_id,
            model_id=model.model_id,
            run_id=model.source_run_id,
        ),
        python_model=_CODE,
        # So the model loads where unshift is not installed, and where it is runs its own trainer.
        code_paths=[str(Path(trainer.__file__).parent)],
        artifacts={
            "record": (trained.folder / RECORD).as_uri(),
            "weights": (trained.folder / WEIGHTS).as_uri(),
        },
        model_config={"device": "cpu"},
        signature=ModelSignature(inputs=_CLIPS, outputs=_CLIPS),
        input_example=_example(),
        pip_requirements=pins,
        metadata={"sample_rate_hz": SAMPLE_RATE_HZ, "channels": 1},
    )


def _example() -> np.ndarray:
    time_s = np.arange(_EXAMPLE_SAMPLES) / SAMPLE_RATE_HZ
    return (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)[np.newaxis]


def _of_model(point: Metric, model: LoggedModel) -> Metric:
    return Metric(
        point.key,
        point.value,
        point.timestamp,
        point.step,
        model_id=model.model_id,
        run_id=model.source_run_id,
    )


def _enter(client: MlflowClient, model: LoggedModel, name: str) -> str:
    """Make a model a new version in the registry, and return its number."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    # With `models:/ID` as its source, a database would look the model up at the global URI.
    made = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=model.source_run_id,
        model_id=model.model_id,
    )
    link = json.dumps([{"name": name, "version": made.version}])
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: link})
    return str(made.version)
