"""Storage roots of every revision so far, and of one that is to come: opened, or refused clearly.

The archives in stores/ were made by tests/support/make_store.py, and are never made anew.
"""

import json
import sqlite3
import tarfile
from pathlib import Path

import alembic.command
import numpy as np
import optuna
import pytest
import soundfile
from mlflow.store.db.utils import _get_alembic_config
from mlflow.tracking import MlflowClient
from tests_support.refusals import assert_refused

from sweeps.engine.places import Places
from sweeps.engine.recorded import find_record
from sweeps.engine.store import STORE_REVISION, open_optuna, read_facts
from trainer.checkpoint import find_usable
from trainer.config import TRAINER_REVISION

STORES = sorted((Path(__file__).parent / "stores").glob("*.tar.xz"))
MADE_AT = "/tmp/unshift-store/root"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=STORES, ids=[path.name for path in STORES])
def root(request, tmp_path, monkeypatch):
    """An old storage root, unpacked where it was not made."""
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.setenv("UNSHIFT_HOME", str(tmp_path / "root"))
    with sqlite3.connect(tmp_path / "root" / "mlflow.db") as database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):  # absolute paths, of where it was made
            moved = f"replace({column}, '{MADE_AT}', '{tmp_path / 'root'}')"
            database.execute(f"UPDATE {table} SET {column} = {moved}")
    database.close()
    return tmp_path / "root"


def set_facts(root, **changes):
    storage = open_optuna(f"sqlite:///{root / 'optuna.db'}")
    study = optuna.load_study(study_name="lr_momentum", storage=storage)
    study.set_user_attr("facts", {**study.user_attrs["facts"], **changes})


def set_schema(path, version):
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    database.close()


def test_there_is_a_store_of_every_revision():
    assert {path.name.partition(".")[0] for path in STORES} >= {
        f"revision_{number}" for number in range(1, STORE_REVISION + 1)
    }


def test_its_leaderboard_is_read(root, unshift):
    status, out, err = unshift("leaderboard", "lr_momentum", "--json")
    trials = json.loads(out)["trials"]
    assert (status, err) == (0, "")
    assert [trial["outcome"] for trial in trials] == ["finished", "stopped"]
    rows = (root / "trials" / trials[0]["fingerprint"] / "metrics.jsonl").read_text().splitlines()
    assert trials[0]["value"] == min(json.loads(row)["stft"] for row in rows)


def test_a_record_and_its_curve_are_read_from_the_folder_and_from_mlflow(root):
    here = Places(storage=str(root))
    there = Places(storage=str(root), tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    record, rows = find_record("best:lr_momentum", here)
    same, same_rows = find_record("best:lr_momentum", there)
    assert record.commit == "of this archive" and record.config.steps == 8
    assert (same.fingerprint, same.config) == (record.fingerprint, record.config)
    assert [row["stft"] for row in same_rows] == pytest.approx([row["stft"] for row in rows])


def test_its_best_net_restores(root, unshift, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 22_050)
    soundfile.write(tmp_path / "in.wav", noise, 44_100)
    arguments = ("restore", "--trial", "best:lr_momentum", tmp_path / "in.wav")
    status, _, err = unshift(*arguments, tmp_path / "out.wav")
    assert status == 0, err
    restored, _ = soundfile.read(tmp_path / "out.wav")
    assert restored.shape == noise.shape and np.abs(restored - noise).max() > 1e-3


def test_its_checkpoints_are_usable_and_its_finished_trial_is_known(root):
    opened = Places(storage=str(root)).root()
    finished = 0
    for folder in opened.trials.iterdir():
        checkpoint, rows = find_usable(folder, fingerprint=folder.name)
        assert rows[-1]["step"] > 0 and checkpoint.is_relative_to(folder)
        finished += opened.find_outcome(folder.name) is not None
    assert finished == 1


def test_mlflow_gets_it_once_more_without_doubles(root, unshift):
    status, out, err = unshift("sync")
    assert (status, out) == (0, "lr_momentum: 2 trials are in MLflow as they are on disk\n"), err
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lr_momentum")
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")) == 2


def test_a_study_of_a_revision_to_come_is_refused(root, unshift):
    set_facts(root, revision=STORE_REVISION + 1)
    expected = f"study=lr_momentum; must be of revision 1 to {STORE_REVISION}, is of"
    for command in (["leaderboard", "lr_momentum"], ["sync"], ["rerun", "best:lr_momentum"]):
        assert_refused(unshift(*command), match=expected)


def test_a_record_of_a_revision_to_come_is_refused(root, unshift):
    for path in root.glob("trials/*/config.json"):
        record = json.loads(path.read_text()) | {"trainer_revision": TRAINER_REVISION + 1}
        path.write_text(json.dumps(record))
    expected = f"trainer_revision={TRAINER_REVISION + 1}; must be 1 to {TRAINER_REVISION}: a newer"
    assert_refused(unshift("rerun", "best:lr_momentum"), match=expected)


def test_a_trial_with_what_is_not_known_yet_is_refused(root, unshift):
    storage = open_optuna(f"sqlite:///{root / 'optuna.db'}")
    study = optuna.load_study(study_name="lr_momentum", storage=storage)
    trial = study.ask()
    known = study.get_trials()[0].user_attrs["record"]
    trial.set_user_attr("record", {**known, "invented_later": 1})
    expected = "must be one of this unshift: got an unexpected keyword argument 'invented_later'"
    assert_refused(unshift("leaderboard", "lr_momentum"), match=expected)


def test_a_study_of_an_optuna_to_come_is_refused(root, unshift):
    set_schema(root / "optuna.db", "v99.0.0.a")
    expected = "a store that this Optuna reads: The runtime optuna version"
    refused = unshift("leaderboard", "lr_momentum")
    assert_refused(refused, match=expected)
    assert "Please try updating optuna" in refused[2]


def test_a_study_of_an_optuna_long_gone_is_opened_once_it_is_upgraded(root, unshift):
    url = f"sqlite:///{root / 'optuna.db'}"
    set_schema(root / "optuna.db", "v3.0.0.d")  # which lacked an index, and nothing else
    refused = unshift("leaderboard", "lr_momentum")
    assert_refused(refused, match="Please execute `$ optuna storage upgrade --storage")
    optuna.storages.RDBStorage(url, skip_compatibility_check=True).upgrade()  # that command
    status, out, _ = unshift("leaderboard", "lr_momentum", "--json")
    assert (status, len(json.loads(out)["trials"])) == (0, 2)


def test_a_record_of_an_mlflow_to_come_is_refused(root, unshift):
    uri = f"sqlite:///{root / 'mlflow.db'}"
    set_schema(root / "mlflow.db", "ffffffffffff")
    for command in (["ui"], ["sync"], ["rerun", "best:lr_momentum", "--tracking-uri", uri]):
        refused = unshift(*command)
        assert_refused(refused, match="(found version ffffffffffff, but expected ")
    assert f"`mlflow db upgrade {uri}` after a backup, a newer one needs a newer" in refused[2]


def test_a_record_of_an_mlflow_with_fewer_tables_is_upgraded_by_mlflow_itself(root):
    uri = f"sqlite:///{root / 'mlflow.db'}"
    alembic.command.downgrade(_get_alembic_config(uri), "75868b020152")
    record, _ = find_record("best:lr_momentum", Places(storage=str(root), tracking_uri=uri))
    assert record.commit == "of this archive"
    with sqlite3.connect(root / "mlflow.db") as database:
        ((version,),) = database.execute("SELECT version_num FROM alembic_version")
    database.close()
    assert version != "75868b020152"


def test_facts_of_today_have_their_revision(root):
    set_facts(root, revision=STORE_REVISION)
    storage = open_optuna(f"sqlite:///{root / 'optuna.db'}")
    study = optuna.load_study(study_name="lr_momentum", storage=storage)
    assert read_facts(study)["revision"] == STORE_REVISION
