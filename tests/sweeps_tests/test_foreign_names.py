"""Names and paths of others, as a store or a user gives them, lead nowhere outside the root."""

import json
import os

import optuna
import pytest
import soundfile
from mlflow.tracking import MlflowClient
from tests_support.fake_sweep import open_sweep as open_driver
from tests_support.refusals import assert_refused
from tests_support.trained_folder import tiny_config, write_trained

from sweeps.engine.mlflow_models import download
from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.places import Places
from sweeps.engine.published import fetch
from sweeps.engine.root import Root
from sweeps.engine.store import open_optuna, open_study
from trainer.record import Record
from trainer.whole_file import replace_whole

NAME = "0123456789abcdef"
ODD = ["../outside", "../../outside", "/etc/passwd", "..", ".", "", "a/b", "a\0b", "\x1b[2J", "*"]
FACTS = {
    "size": "demo",
    "data_path": "demo",
    "data_fingerprint": "0" * 16,
    "fields": {},
    "do_nothing": {"stft": 1.5},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root in a folder of its own, which is looked at afterwards: nothing else may be in it."""
    inside = tmp_path / "place" / "root"
    monkeypatch.setenv("UNSHIFT_HOME", str(inside))
    monkeypatch.chdir(tmp_path)
    yield Root.open(str(inside), relative_to=tmp_path, create=True)
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["root"]


def open_sweep(root, *, name="lr_momentum", setting="0123abcd"):
    return open_study(open_optuna(root.study_url), name, setting, lambda: FACTS)


def add_trial(study, fingerprint, **changes):
    """Add a finished trial to a study, as a foreign store may have it."""
    known = TrialRecord(fingerprint=NAME, outcome="finished", value=1.0, step=1).to_json()
    trial = study.ask()
    trial.set_user_attr("fingerprint", fingerprint)
    trial.set_user_attr("record", {**known, "fingerprint": fingerprint, **changes})
    study.tell(trial, 1.0)


# What a user types.


@pytest.mark.parametrize("command", ["rerun", "restore", "export", "describe"])
def test_a_trial_of_an_odd_name_is_refused(root, unshift, tmp_path, command):
    soundfile.write(tmp_path / "in.wav", [0.0] * 1000, 44_100)
    for trial in ODD:
        more = {
            "rerun": [trial],
            "restore": ["in.wav", "out.wav", "--trial", trial],
            "export": ["--trial", trial, "--out", "out"],
            "describe": ["--trial", trial],
        }[command]
        status, out, err = unshift(command, *more)
        assert (status, out, err.count("\n")) == (2, "", 1)
        said = ("must be 16 hex digits", "there is none", "not empty", "null")
        assert any(each in err for each in said), err
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav", "place"}


def test_a_sweep_of_an_odd_name_is_unknown(root, unshift):
    open_sweep(root)
    MlflowClient(root.tracking_uri).search_experiments()
    known = "must be one of the sweeps there are: lr_momentum, lr_momentum@0123abcd"
    for sweep in filter(None, ODD):
        assert_refused(unshift("leaderboard", sweep), match=known)
        assert_refused(unshift("sync", sweep), match=known)
        assert_refused(unshift("rerun", f"best:{sweep}"), match=known)
        assert_refused(unshift("ui", sweep), match="; must be ")


# What a study says.


def test_a_study_with_a_trial_of_an_odd_name_is_refused(root, unshift):
    for number, name in enumerate(ODD):
        add_trial(open_sweep(root, name=f"sweep_{number}"), name)
        refused = unshift("leaderboard", f"sweep_{number}")
        assert_refused(refused, match=f"fingerprint={name!r}; must be 16 hex digits")
    for command in (["rerun", "best:sweep_0"], ["sync", "sweep_0"]):
        assert_refused(unshift(*command), match=f"fingerprint={ODD[0]!r}; must be 16 hex digits")


def test_an_unfinished_trial_of_an_odd_name_is_refused(root, unshift):
    open_sweep(root).ask().set_user_attr("fingerprint", "../outside")
    assert_refused(unshift("leaderboard", "lr_momentum"), match="must be 16 hex digits")


def test_a_study_of_a_sweep_of_an_odd_name_is_not_delivered(root, unshift):
    for name in ("../outside", "/tmp/x", "a b", "\x1b[2J"):
        open_sweep(root, name=name)
        refused = unshift("sync", name)
        assert_refused(refused, match=f"sweep={f'{name}@0123abcd'!r}; must be made of letters")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "x\0y", ""])
def test_no_lock_lies_outside_the_root(root, name):
    with pytest.raises(ValueError, match="must be made of letters"), root.hold(name, timeout_s=0):
        pass


def test_a_study_with_odd_facts_is_no_sweep(root, unshift):
    study = optuna.create_study(storage=open_optuna(root.study_url), study_name="x")
    for facts in (7, [], {"sweep": ["x"], "setting": {}}, {"sweep": "x"}):
        study.set_user_attr("facts", facts)
        assert_refused(unshift("leaderboard", "x"), match="the sweeps there are: none yet")


def test_a_study_without_do_nothing_is_refused(root, unshift):
    study = open_sweep(root)
    for do_nothing in (None, [], {}, {"stft": "1.5"}):
        study.set_user_attr("facts", {**study.user_attrs["facts"], "do_nothing": do_nothing})
        refused = unshift("leaderboard", "lr_momentum")
        assert_refused(refused, match="study=lr_momentum; must have do-nothing's stft, has")


def test_an_outcome_that_is_none_is_refused(root, unshift):
    add_trial(open_sweep(root), NAME, outcome="won")
    refused = unshift("leaderboard", "lr_momentum")
    assert_refused(refused, match="outcome='won'; must be one of finished, stopped, ")


def test_a_record_that_cannot_be_is_refused(root, unshift):
    add_trial(open_sweep(root), NAME, value="1.2")
    said = "record of the study's trial 0: value=1.2; must be a number, or null"
    for command in (["leaderboard", "lr_momentum"], ["sync"], ["rerun", "best:lr_momentum"]):
        assert_refused(unshift(*command), match=said)
    with pytest.raises(ValueError, match=f"^{said}"):
        open_driver(optuna.load_study(study_name="lr_momentum", storage=root.study_url))


# What a trial's folder holds.


def test_a_link_as_a_trials_folder_is_refused_by_every_command(root, unshift, tmp_path):
    write_trained(tmp_path / "outside", tiny_config("frames"))
    root.trials.mkdir()
    (root.trials / NAME).symlink_to(tmp_path / "outside")
    add_trial(open_sweep(root), NAME)
    soundfile.write(tmp_path / "in.wav", [0.0] * 1000, 44_100)
    for command in (
        ["rerun", "best:lr_momentum"],
        ["sync"],
        ["export", "--trial", NAME, "--out", "out"],
        ["restore", "in.wav", "out.wav", "--trial", "best:lr_momentum"],
    ):
        assert_refused(unshift(*command), match=f"trial={NAME}; must lie in {root.path}: ")


def test_a_file_is_never_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("as it was")
    for name in ("config.json", "config.json.tmp"):
        (tmp_path / name).symlink_to(outside)
    replace_whole(tmp_path / "config.json", lambda file: file.write(b"new"))
    assert outside.read_text() == "as it was"
    assert not (tmp_path / "config.json").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["config.json", "outside"]


def test_an_outcome_is_never_written_through_a_link(root, tmp_path):
    folder = root.trial_folder(NAME)
    folder.mkdir(parents=True)
    (tmp_path / "outside").write_text("as it was")
    for name in ("outcome.json", "outcome.json.tmp"):
        (folder / name).symlink_to(tmp_path / "outside")
    record = TrialRecord(fingerprint=NAME, outcome="finished", value=1.0, step=1)
    root.keep_outcome(record, study="x")
    assert (tmp_path / "outside").read_text() == "as it was"
    assert root.find_outcome(NAME) == ("x", record)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "x"])
def test_a_record_of_an_earlier_revision_with_an_odd_name_is_refused(name):
    text = Record(config=tiny_config("frames"), data_fingerprint="0" * 16, commit="x").to_text()
    changed = json.loads(text) | {"trainer_revision": 1, "fingerprint": name}
    with pytest.raises(ValueError, match=f"fingerprint={name}; must be 16 hex digits"):
        Record.from_text(json.dumps(changed), source="there")


# What MLflow says.


class ForeignModel:
    """A model as a foreign server may tell of it."""

    artifact_location = "/nowhere"

    def __init__(self, model_id):
        self.model_id = model_id


@pytest.mark.parametrize("name", [name for name in ODD if name != "*"])
def test_a_model_of_an_odd_name_is_not_fetched(root, name):
    with pytest.raises(ValueError, match="^model=.*; must be made of letters"):
        download(ForeignModel(name), "sqlite:///nowhere", cache=root.cache)
    assert not root.cache.exists()


def test_a_run_whose_record_has_an_odd_name_is_refused(root, unshift):
    client = MlflowClient(root.tracking_uri)
    place = (root.path / "mlflow-artifacts").as_uri()
    experiment = client.create_experiment("lr_momentum", artifact_location=place)
    tags = {"kind": "trial", "fingerprint": NAME, "study": "../../x", "setting": "/etc@0"}
    run = client.create_run(experiment, tags=tags, run_name="../../outside")
    text = Record(config=tiny_config("frames"), data_fingerprint="0" * 16, commit="x").to_text()
    changed = json.loads(text) | {"trainer_revision": 1, "fingerprint": "../../outside"}
    client.log_text(run.info.run_id, json.dumps(changed), "config.json")
    refused = unshift("rerun", NAME, "--tracking-uri", root.tracking_uri)
    assert_refused(refused, match="fingerprint=../../outside; must be 16 hex digits")


def test_a_run_with_artifacts_elsewhere_gives_no_net(root, tmp_path):
    """What a run says of itself is no model: only what the registry of models has is fetched."""
    client = MlflowClient(root.tracking_uri)
    experiment = client.create_experiment("lr_momentum", artifact_location=(tmp_path).as_uri())
    client.create_run(experiment, tags={"kind": "trial", "fingerprint": NAME})
    with pytest.raises(ValueError, match=f"trial={NAME}; must be one that is a model"):
        fetch(NAME, root.tracking_uri, cache=root.cache)
    assert Places(storage=str(root.path)).root().path == root.path
