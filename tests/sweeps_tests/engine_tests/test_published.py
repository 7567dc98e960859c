import os
import subprocess
import sys
from dataclasses import replace

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import LoggedModelStatus
from mlflow.tracking import MlflowClient
from tests_support.fake_sweep import open_sweep, settle
from tests_support.trained_folder import write_trained

from sweeps.engine.published import publish_best
from sweeps.engine.recorded import find_record, find_trained
from sweeps.engine.store import open_optuna, open_study
from sweeps.engine.sync import deliver
from trainer.checkpoint import load_best, save_best
from trainer.trained import read_trained, restore_clips

SETTING = "0123abcd"

in_a_folder = pytest.mark.parametrize("places", ["folder"], indirect=True)

LOADING = """
import sys
import numpy as np
sys.path = [place for place in sys.path if "site-packages" in place or "python3" in place]
sys.modules |= dict.fromkeys(("psutil", "soundfile", "torchaudio"))  # what it does not ask for
try:
    import trainer
except ImportError:
    import mlflow, torch
    torch.set_num_threads(1)
    model = mlflow.pyfunc.load_model(sys.argv[1])
    np.save(sys.argv[3], model.predict(np.load(sys.argv[2])))
    print(model.input_example.shape, model.metadata.get_input_schema().inputs[0].shape)
"""
"""A process that has what a model says it needs, and not unshift."""


@pytest.fixture(autouse=True)
def nothing_global(monkeypatch):
    """Where MLflow would go by itself there is nothing."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    yield
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == "sqlite:////proc/nowhere/mlflow.db"


class FakeSweep:
    """A sweep's study, root and record, with trials that were never trained."""

    def __init__(self, places, host, name, data_fingerprint):
        self.places, self.name = places, name
        self.worker, self.root = host("worker"), host("driver")
        self.uri = places.tracking_url()
        self._data = data_fingerprint
        facts = {"do_nothing": {"stft": 1.5}, "data_fingerprint": self._data, "size": "demo"}
        self.study = open_study(open_optuna(places.study_url()), name, SETTING, lambda: facts)
        self.shown = []

    def add_trial(self, value, outcome="finished"):
        sweep = open_sweep(self.study, data_fingerprint=self._data)
        suggestion = sweep.next()
        name = suggestion.fingerprint
        folder = self.worker.trial_folder(name)
        seed = int(value * 10)
        write_trained(folder, suggestion.config, data_fingerprint=self._data, seed=seed)
        self.worker.share(name)
        settle(sweep, suggestion, outcome, curve={10: value + 0.1, 20: value})
        return name

    def track(self):
        deliver(
            self.study,
            root=self.root,
            study_url=self.places.study_url(),
            tracking_uri=self.uri,
            show=lambda line: None,
        )

    def publish(self, uri=None):
        publish_best(
            self.study, root=self.root, tracking_uri=uri or self.uri, show=self.shown.append
        )

    @property
    def client(self):
        return MlflowClient(self.uri)

    def models(self):
        experiment = self.client.get_experiment_by_name(self.name)
        return list(self.client.search_logged_models([experiment.experiment_id]))

    def versions(self):
        return list(self.client.search_model_versions(f"name = '{self.name}'"))

    @property
    def recorded(self):
        """Return the places of who has the record in MLflow."""
        return replace(self.places, tracking_uri=self.uri)

    def find_trained(self, trial):
        return find_trained(trial, self.recorded)


@pytest.fixture
def sweep(places, study_url, tracking_url, host, sweep_name, trials):
    return FakeSweep(places, host, sweep_name, data_fingerprint=next(trials))


@pytest.fixture
def clips():
    return np.random.default_rng(0).uniform(-1, 1, (3, 5001)).astype(np.float32)


def restored_here(folder, clips):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = read_trained(folder).load(torch.device("cpu"))
    restored = restore_clips(net, torch.from_numpy(clips)).numpy()
    torch.set_num_threads(threads)
    return restored


def load_elsewhere(model_uri, tracking_uri, clips, tmp_path):
    np.save(tmp_path / "in.npy", clips)
    arguments = [model_uri, tmp_path / "in.npy", tmp_path / "out.npy"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "out.npy"), done


def test_another_process_without_unshift_restores_the_same_samples(sweep, clips, tmp_path):
    best = sweep.add_trial(1.1)
    sweep.track()
    sweep.publish()
    restored, done = load_elsewhere(f"models:/{sweep.name}@best", sweep.uri, clips, tmp_path)
    assert np.array_equal(restored, restored_here(sweep.worker.trial_folder(best), clips))
    assert np.abs(restored - clips).max() > 0.1  # the net does something
    assert done.stdout == "(1, 2048) (-1, -1)\n"
    assert "WARNING" not in done.stderr


def test_the_best_finished_trial_is_the_model_of_its_run(sweep, caplog):
    sweep.add_trial(1.3)
    best = sweep.add_trial(1.1)
    sweep.add_trial(0.9, outcome="stopped")
    sweep.track()
    for _ in range(2):  # the second time there is nothing to do
        sweep.publish()
    (model,) = sweep.models()
    run = sweep.client.get_run(model.source_run_id)
    assert (model.name, run.info.run_name) == (best, best)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert [(metric.key, metric.value) for metric in model.metrics] == [("value", 1.1)]
    assert len(sweep.client.get_metric_history(run.info.run_id, "value")) == 1
    for alias in ("best", SETTING):
        version = sweep.client.get_model_version_by_alias(sweep.name, alias)
        assert version.source == model.artifact_location
    assert sweep.shown == [f"best trial {best} is a model in MLflow: models:/{sweep.name}@best"]
    assert caplog.text == ""


@in_a_folder
def test_again_makes_no_second_model_and_a_new_best_makes_its_own(sweep):
    first = sweep.add_trial(1.2)
    sweep.track()
    sweep.publish()
    sweep.publish()
    assert [model.name for model in sweep.models()] == [first]
    second = sweep.add_trial(1.1)
    sweep.track()
    sweep.publish()
    assert {model.name for model in sweep.models()} == {first, second}
    assert len(sweep.versions()) == len(sweep.shown) == 2
    best = sweep.client.get_model_version_by_alias(sweep.name, "best")
    assert sweep.client.get_run(best.run_id).data.tags["fingerprint"] == second


@in_a_folder
def test_a_model_that_was_left_half_written_is_made_anew(sweep):
    name = sweep.add_trial(1.2)
    sweep.track()
    (run,) = sweep.client.search_runs(["1"], f"tags.fingerprint = '{name}'")
    sweep.client.create_logged_model("1", name=name, source_run_id=run.info.run_id)
    sweep.publish()
    (model,) = sweep.models()
    assert model.status == LoggedModelStatus.READY


@in_a_folder
def test_a_store_that_is_down_costs_one_warning_and_is_made_up_for(sweep, caplog):
    name = sweep.add_trial(1.2)
    sweep.track()
    sweep.publish(uri="sqlite:////proc/nowhere/other.db")
    assert caplog.text.count("is not yet a model in MLflow") == len(caplog.records) == 1
    assert sweep.shown == []
    sweep.publish()
    assert [model.name for model in sweep.models()] == [name]


@in_a_folder
@pytest.mark.parametrize("fault", ["missing", "damaged", "infinite"])
def test_weights_that_are_missing_damaged_or_infinite_make_no_model(sweep, caplog, fault):
    folder = sweep.root.trial_folder(sweep.add_trial(1.2))
    file = folder / "best.safetensors"
    sweep.track()
    weights = {name: value / 0 for name, value in load_best(folder).items()}
    file.write_bytes(b"damaged")
    if fault == "missing":
        file.unlink()
    elif fault == "infinite":
        save_best(folder, weights, step=1)
    sweep.publish()
    assert f"weights={file}; must" in caplog.text
    assert sweep.models() == []


@in_a_folder
def test_a_trial_without_a_run_waits_for_one(sweep, caplog):
    sweep.add_trial(1.2)
    sweep.publish()
    assert "it has no run there yet" in caplog.text


@in_a_folder
def test_nothing_finished_is_nothing_to_publish(sweep, caplog):
    sweep.add_trial(1.2, outcome="stopped")
    sweep.track()
    sweep.publish()
    assert (sweep.models(), sweep.shown, caplog.text) == ([], [], "")


def test_the_net_can_be_had_from_mlflow(sweep):
    old, best = sweep.add_trial(1.2), None
    sweep.track()
    sweep.publish()
    best = sweep.add_trial(1.1)
    sweep.track()
    assert sweep.find_trained(f"best:{sweep.name}").record.fingerprint == old  # has the only model
    with pytest.raises(ValueError, match=f"trial={best}; must be one that is a model in this"):
        sweep.find_trained(best)
    sweep.publish()
    for trial in (f"best:{sweep.name}", best):
        found = sweep.find_trained(trial)
        weights = (found.folder / "best.safetensors").read_bytes()
        assert found.record.fingerprint == best
        assert weights == (sweep.worker.trial_folder(best) / "best.safetensors").read_bytes()
        assert find_record(trial, sweep.recorded)[0].fingerprint == best
    assert found.folder.parent == sweep.places.root().cache / "models"
    assert {path.name for path in found.folder.parent.iterdir()} >= {found.folder.name}
    assert not list(found.folder.parent.glob("*.partial"))
