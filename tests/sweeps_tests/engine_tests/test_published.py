import os
import socket
import subprocess
import sys
import time
import urllib.request

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import LoggedModelStatus
from mlflow.tracking import MlflowClient
from optuna.storages import RDBStorage
from tests_support.fake_sweep import open_sweep, settle
from tests_support.trained_folder import write_trained

from cluster.processes import end_tree, start_tree
from sweeps.engine.mlflow_runs import TrackedSweep
from sweeps.engine.outcomes import rank
from sweeps.engine.places import Places
from sweeps.engine.published import publish_best
from sweeps.engine.recorded import find_record, find_trained
from sweeps.engine.root import Root
from sweeps.engine.store import keep_run_id, open_study
from sweeps.engine.study_records import read_records
from sweeps.engine.tracking import Tracking
from trainer.trained import read_trained, restore_clips

SETTING = "0123abcd"

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

    def __init__(self, folder, uri=None):
        self.root = Root(path=folder)
        self.uri = uri or self.root.tracking_uri
        storage = RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
        facts = {"do_nothing": {"stft": 1.5}}
        self.study = open_study(storage, "lr_momentum", SETTING, lambda: facts)
        self.shown = []

    def add_trial(self, value, outcome="finished"):
        sweep = open_sweep(self.study)
        suggestion = sweep.next()
        name = suggestion.fingerprint
        write_trained(self.root.trial_folder(name), suggestion.config, seed=int(value * 10))
        settle(sweep, suggestion, outcome, curve={10: value + 0.1, 20: value})
        return name

    def track(self):
        tracked = TrackedSweep(
            name="lr_momentum",
            study="lr_momentum",
            turn=1,
            do_nothing={"stft": 1.5},
            tags={"setting": f"lr_momentum@{SETTING}"},
            tracking_uri=self.uri,
            artifacts=None if self.uri.startswith("http") else self.root.artifacts,
        )
        tracking = Tracking(tracked, on_run=lambda name, run: keep_run_id(self.study, name, run))
        for record in read_records(self.study):
            config = self.root.read_record_text(record.fingerprint)
            tracking.write_whole(record, read=lambda config=config: ([], config))
        assert tracking.close(rank(read_records(self.study))) == 0

    def publish(self, uri=None):
        publish_best(
            self.study, root=self.root, tracking_uri=uri or self.uri, show=self.shown.append
        )

    @property
    def client(self):
        return MlflowClient(self.uri)

    def models(self):
        experiment = self.client.get_experiment_by_name("lr_momentum")
        return list(self.client.search_logged_models([experiment.experiment_id]))

    def versions(self):
        return list(self.client.search_model_versions("name = 'lr_momentum'"))

    def find_trained(self, trial):
        places = Places(storage=str(self.root.path), tracking_uri=self.uri)
        return find_trained(trial, places)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty MLflow database, which takes seconds to make: copied for each test."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def sweep(tmp_path, template):
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    return FakeSweep(tmp_path)


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
    restored, done = load_elsewhere("models:/lr_momentum@best", sweep.uri, clips, tmp_path)
    assert np.array_equal(restored, restored_here(sweep.root.trial_folder(best), clips))
    assert np.abs(restored - clips).max() > 0.1  # the net does something
    assert done.stdout == "(1, 2048) (-1, -1)\n"
    assert "WARNING" not in done.stderr


def test_the_best_finished_trial_is_the_model_of_its_run(sweep, caplog):
    sweep.add_trial(1.3)
    best = sweep.add_trial(1.1)
    sweep.add_trial(0.9, outcome="stopped")
    sweep.track()
    sweep.publish()
    (model,) = sweep.models()
    run = sweep.client.get_run(model.source_run_id)
    assert (model.name, run.info.run_name) == (best, best)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert [(metric.key, metric.value) for metric in model.metrics] == [("value", 1.1)]
    assert len(sweep.client.get_metric_history(run.info.run_id, "value")) == 1
    for alias in ("best", SETTING):
        version = sweep.client.get_model_version_by_alias("lr_momentum", alias)
        assert version.source == model.artifact_location
    assert sweep.shown == [f"best trial {best} is a model in MLflow: models:/lr_momentum@best"]
    assert caplog.text == ""


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
    best = sweep.client.get_model_version_by_alias("lr_momentum", "best")
    assert sweep.client.get_run(best.run_id).data.tags["fingerprint"] == second


def test_a_model_that_was_left_half_written_is_made_anew(sweep):
    name = sweep.add_trial(1.2)
    sweep.track()
    (run,) = sweep.client.search_runs(["1"], f"tags.fingerprint = '{name}'")
    sweep.client.create_logged_model("1", name=name, source_run_id=run.info.run_id)
    sweep.publish()
    (model,) = sweep.models()
    assert model.status == LoggedModelStatus.READY


def test_a_store_that_is_down_costs_one_warning_and_is_made_up_for(sweep, caplog):
    name = sweep.add_trial(1.2)
    sweep.track()
    sweep.publish(uri="sqlite:////proc/nowhere/other.db")
    assert caplog.text.count("is not yet a model in MLflow") == len(caplog.records) == 1
    assert sweep.shown == []
    sweep.publish()
    assert [model.name for model in sweep.models()] == [name]


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_weights_that_are_missing_or_damaged_make_no_model(sweep, caplog, content):
    file = sweep.root.trial_folder(sweep.add_trial(1.2)) / "best.safetensors"
    sweep.track()
    file.unlink() if content is None else file.write_bytes(content)
    sweep.publish()
    assert f"weights={file}; must" in caplog.text
    assert sweep.models() == []


def test_a_trial_without_a_run_waits_for_one(sweep, caplog):
    sweep.add_trial(1.2)
    sweep.publish()
    assert "it has no run there yet" in caplog.text


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
    assert sweep.find_trained("best:lr_momentum").record.fingerprint == old  # has the only model
    with pytest.raises(ValueError, match=f"trial={best}; must be one that is a model in this"):
        sweep.find_trained(best)
    sweep.publish()
    for trial in ("best:lr_momentum", best):
        found = sweep.find_trained(trial)
        weights = (found.folder / "best.safetensors").read_bytes()
        assert found.record.fingerprint == best
        assert weights == (sweep.root.trial_folder(best) / "best.safetensors").read_bytes()
    assert found.folder.parent == sweep.root.cache / "models"
    assert {path.name for path in found.folder.parent.iterdir()} >= {found.folder.name}
    assert not list(found.folder.parent.glob("*.partial"))


@pytest.fixture
def server(tmp_path):
    """MLflow's server, through which all files go."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'served.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "served"), "--host", "127.0.0.1"]
    with (tmp_path / "server.log").open("wb") as log:
        process = start_tree(command, env=os.environ, output=log)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        end_tree(process)


def wait_until_it_answers(url):
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.slow
def test_record_and_model_go_through_a_server_too(tmp_path, server, clips):
    sweep = FakeSweep(tmp_path, server)
    best = sweep.add_trial(1.1)
    sweep.track()
    sweep.publish()
    sweep.publish()
    assert len(sweep.models()) == len(sweep.versions()) == 1
    folder = sweep.root.trial_folder(best)
    restored, _ = load_elsewhere(f"models:/lr_momentum@{SETTING}", server, clips, tmp_path)
    assert np.array_equal(restored, restored_here(folder, clips))
    places = Places(storage=str(tmp_path), tracking_uri=server)
    assert find_record("best:lr_momentum", places)[0].fingerprint == best
    found = find_trained(best, places).folder / "best.safetensors"
    assert found.read_bytes() == (folder / "best.safetensors").read_bytes()
