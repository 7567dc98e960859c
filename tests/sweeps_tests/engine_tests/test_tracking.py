import contextlib
import dataclasses
import re
import subprocess
import sys
import time

import pytest
from mlflow.tracking import MlflowClient
from tests_support.waiting import wait_until

from sweeps.engine.mlflow_lookup import find_trial_run, read_run
from sweeps.engine.mlflow_runs import TrackedSweep
from sweeps.engine.mlflow_store import check_store, open_client
from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.tracking import Tracking
from sweeps.engine.ui import sorted_path

A, B, C = "a" * 16, "b" * 16, "c" * 16
"""Trials; a server has others of these names, of other sweeps."""
PARAMS = {"optimizer.lr": 0.005, "optimizer.momentum": 0.9}


in_a_folder = pytest.mark.parametrize("places", ["folder"], indirect=True)


def row(step, value):
    return {"step": step, "stft": value, "train_losses": [1.0], "time_ms": 1000 + step}


def record(name, outcome="finished", value=1.2):
    return TrialRecord(fingerprint=name, outcome=outcome, params=PARAMS, step=20, value=value)


@pytest.fixture
def sweep(host, tracking_url, sweep_name):
    """A sweep as it is told to a file's store or a server, which has many others."""
    own = None if tracking_url.startswith("http") else host("one").artifacts
    return TrackedSweep(
        name=sweep_name,
        study=sweep_name,
        turn=1,
        do_nothing={"stft": 1.5},
        tags={"commit": "c0ffee"},
        tracking_uri=tracking_url,
        artifacts=own,
    )


def run_trial(tracking, name, *, outcome="finished", value=1.2):
    tracking.start_trial(name, PARAMS, '{"config": 0}')
    tracking.describe_trial(name, {"device": "x86", "torch": "2.11"})
    tracking.add_row(name, row(10, 1.4))
    tracking.add_row(name, row(20, value))
    tracking.end_trial(record(name, outcome, value), config='{"config": 1}')


def write(sweep, *names, **changes):
    ids = {}
    tracking = Tracking(sweep, on_run=ids.__setitem__)
    for name in names:
        run_trial(tracking, name, **changes)
    assert tracking.close([record(name) for name in names], timeout_s=60) == 0
    return ids


def children(sweep):
    client = MlflowClient(sweep.tracking_uri)
    experiment = client.get_experiment_by_name(sweep.name)
    runs = client.search_runs([experiment.experiment_id])
    return {
        run.data.tags["fingerprint"]: run for run in runs if "mlflow.parentRunId" in run.data.tags
    }


def outcome_of(sweep, name):
    """Return what a trial's run says, where it is there."""
    with contextlib.suppress(KeyError, AttributeError):
        return children(sweep)[name].data.tags["outcome"]


def test_a_trial_is_one_child_run_with_params_tags_and_curve(sweep):
    ids = write(sweep, A)
    (run,) = children(sweep).values()
    assert ids == {A: run.info.run_id}
    assert run.data.params == {"optimizer.lr": "0.005", "optimizer.momentum": "0.9"}
    tags = run.data.tags
    assert (tags["outcome"], tags["rank"], tags["commit"]) == ("finished", "1", "c0ffee")
    assert (tags["device"], tags["torch"]) == ("x86", "2.11")
    history = MlflowClient(sweep.tracking_uri).get_metric_history(run.info.run_id, "stft")
    assert [(point.step, point.value) for point in history] == [(10, 1.4), (20, 1.2)]
    assert run.data.metrics["gain_percent"] == pytest.approx(20.0)  # rounding of the quotient


def test_what_is_sent_twice_is_there_once(sweep):
    first = write(sweep, A)
    assert write(sweep, A) == first
    (run,) = children(sweep).values()
    history = MlflowClient(sweep.tracking_uri).get_metric_history(run.info.run_id, "stft")
    assert [point.step for point in history] == [10, 20]


def test_a_step_that_was_trained_again_is_there_once(sweep):
    """A trial that lost its last checkpoint trains the same steps again, at other times."""
    first = Tracking(sweep, on_run=lambda trial, run: None)
    first.start_trial(A, PARAMS, "")
    for step in (10, 20):
        first.add_row(A, row(step, 1.4))
    first.end_trial(record(A, "interrupted", 1.4), config="")
    assert first.close([], timeout_s=60) == 0
    rows = [{**row(step, 1.4), "time_ms": 9000 + step} for step in (10, 20, 30)]
    again = Tracking(sweep, on_run=lambda trial, run: None)
    again.start_trial(A, PARAMS, "")
    for each in rows[1:]:
        again.add_row(A, each)
    again.end_trial(dataclasses.replace(record(A), step=30), config="")
    assert again.close([], timeout_s=60) == 0
    ended = dataclasses.replace(record(A, "interrupted", 1.4), step=30)
    synced = Tracking(sweep, on_run=lambda trial, run: None)
    synced.write_whole(ended, read=lambda: (rows, ""))
    assert synced.close([], timeout_s=60) == 0
    (run,) = children(sweep).values()
    client = MlflowClient(sweep.tracking_uri)
    history = client.get_metric_history(run.info.run_id, "stft")
    assert [(point.step, point.timestamp) for point in history] == [
        (10, 1010),
        (20, 1020),
        (30, 9030),
    ]
    values = client.get_metric_history(run.info.run_id, "value")
    assert [(point.step, point.timestamp, point.value) for point in values] == [
        (20, 1020, 1.4),
        (30, 9030, 1.2),
        (30, 9030, 1.4),
    ]


def test_a_second_driver_finds_the_same_parent(sweep):
    write(sweep, A)
    write(sweep, B)
    parents = {run.data.tags["mlflow.parentRunId"] for run in children(sweep).values()}
    assert len(parents) == 1
    assert children(sweep).keys() == {A, B}


def test_a_failed_trial_carries_its_error(sweep):
    tracking = Tracking(sweep, on_run=lambda trial, run: None)
    tracking.start_trial(A, PARAMS, "")
    failed = TrialRecord(fingerprint=A, outcome="failed", error="boom at step 3")
    tracking.end_trial(failed, config="", error_text="Traceback: boom")
    assert tracking.close([failed], timeout_s=60) == 0
    (run,) = children(sweep).values()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "boom at step 3")
    artifacts = MlflowClient(sweep.tracking_uri).list_artifacts(run.info.run_id)
    assert [artifact.path for artifact in artifacts] == ["error.txt"]


def test_what_a_killed_driver_did_not_write_is_made_up_for(sweep):
    killed = Tracking(sweep, on_run=lambda trial, run: None)
    killed.start_trial(A, PARAMS, "")
    killed.add_row(A, row(10, 1.4))
    assert killed.close([], timeout_s=60) == 0
    later = Tracking(sweep, on_run=lambda trial, run: None)
    later.write_whole(record(A), read=lambda: ([row(10, 1.4), row(20, 1.2)], "text"))
    later.write_whole(record(B, value=1.1), read=lambda: ([row(10, 1.1)], "text"))
    assert later.close([], timeout_s=60) == 0
    runs = children(sweep)
    assert {name: run.data.tags["outcome"] for name, run in runs.items()} == {
        A: "finished",
        B: "finished",
    }
    assert runs[A].data.metrics["stft"] == 1.2


def test_of_a_trial_that_mlflow_has_whole_nothing_is_read(sweep):
    """A sweep that goes on may have thousands, each with its journal in an object store."""
    write(sweep, A)
    read = []
    later = Tracking(sweep, on_run=lambda trial, run: None)
    for name in (A, B):
        later.write_whole(record(name), read=lambda name=name: (read.append(name), ([], ""))[1])
    assert later.close([]) == 0
    assert read == [B]


@pytest.mark.parametrize(("is_hurried", "is_missing"), [(False, 0), (True, 1)])
def test_ranks_take_their_time_unless_there_is_a_hurry(sweep, monkeypatch, is_hurried, is_missing):
    """A thousand trials' ranks take longer than a stopped job may wait."""
    names = [f"{number:016x}" for number in range(30)]
    write(sweep, *names)
    real = MlflowClient.set_tag
    monkeypatch.setattr(MlflowClient, "set_tag", lambda *a: (time.sleep(0.1), real(*a)))
    opened = {}
    tracking = Tracking(sweep, on_run=opened.__setitem__)
    tracking.describe_trial(names[0], {"device": "another"})
    wait_until(lambda: children(sweep)[names[0]].data.tags["device"] == "another")
    assert len(opened) == len(names)
    ranked = [record(name) for name in names]
    missing = tracking.close(ranked, timeout_s=2.5, is_hurried=lambda: is_hurried)
    assert missing == is_missing


def test_an_interrupted_trial_that_goes_on_ends_as_what_it_became(sweep):
    for outcome in ("interrupted", "interrupted", "finished"):
        write(sweep, A, outcome=outcome)
        (run,) = children(sweep).values()
        assert run.data.tags["outcome"] == outcome
    assert run.info.status == "FINISHED"


@in_a_folder
def test_one_write_that_is_refused_does_not_keep_the_others_back(sweep):
    tracking = Tracking(sweep, on_run=lambda trial, run: None)
    tracking.start_trial(A, {"name\nwith a line break": 1}, "")  # MLflow takes no such name
    run_trial(tracking, B)
    wait_until(lambda: outcome_of(sweep, B) == "finished")
    assert tracking.close([], timeout_s=1.0) == 1


def test_a_sweep_deleted_in_the_ui_is_written_to_again(sweep):
    write(sweep, A)
    client = MlflowClient(sweep.tracking_uri)
    client.delete_experiment(client.get_experiment_by_name(sweep.name).experiment_id)
    write(sweep, B)
    assert B in children(sweep)


def test_the_record_can_be_read_back(sweep, trials):
    name = next(trials)
    write(sweep, name)
    with open_client(sweep.tracking_uri) as client:
        text, rows = read_run(client, find_trial_run(client, name))
    assert text == '{"config": 1}'
    assert rows == [{"step": 10, "stft": 1.4}, {"step": 20, "stft": 1.2}]


def test_best_is_the_finished_run_with_the_lowest_value(sweep):
    write(sweep, A, value=1.3)
    write(sweep, B, value=1.1)
    write(sweep, C, value=0.9, outcome="stopped")
    with open_client(sweep.tracking_uri) as client:
        assert find_trial_run(client, f"best:{sweep.name}").data.tags["fingerprint"] == B
        with pytest.raises(ValueError, match="trial=f+; must be a trial that"):
            find_trial_run(client, "f" * 16)
        for hostile in ("a' or '1' = '1", "best:a'b"):
            with pytest.raises(ValueError, match="must be"):
                find_trial_run(client, hostile)


def test_best_is_of_the_setting_that_ran_last(sweep):
    write(sweep, A, value=1.0)
    other = {"study": f"{sweep.name}@0123abcd", "turn": 2}
    tags = {"setting": f"{sweep.name}@0123abcd"}
    write(dataclasses.replace(sweep, **other, tags=tags), B, value=1.9)
    with open_client(sweep.tracking_uri) as client:
        assert find_trial_run(client, f"best:{sweep.name}").data.tags["fingerprint"] == B
        write(dataclasses.replace(sweep, turn=3))
        assert find_trial_run(client, f"best:{sweep.name}").data.tags["fingerprint"] == A
        named = find_trial_run(client, f"best:{sweep.name}@0123abcd")
    assert named.data.tags["fingerprint"] == B


@in_a_folder
def test_the_address_of_the_ui_sorts_a_sweep_by_validation(sweep):
    write(sweep, A)
    path = sorted_path(sweep.tracking_uri, sweep.name)
    parent = children(sweep)[A].data.tags["mlflow.parentRunId"]
    assert parent in path
    assert "orderByKey=metrics.%60value%60&orderByAsc=true" in path
    with pytest.raises(ValueError, match="sweep=other; must be one that"):
        sorted_path(sweep.tracking_uri, "other")


@pytest.mark.parametrize("uri", ["foo://bar", "sqlite:////proc/nowhere/x.db", "mysql+nodriver://x"])
def test_a_store_that_cannot_be_opened_is_refused_in_one_line(uri):
    with pytest.raises(ValueError, match=re.escape(f"tracking-uri={uri}; must be")):
        check_store(uri)


@in_a_folder
def test_a_store_that_cannot_be_reached_costs_a_warning_and_no_crash(sweep, caplog):
    nobody = dataclasses.replace(sweep, tracking_uri="sqlite:////proc/nowhere/mlflow.db")
    tracking = Tracking(nobody, on_run=lambda trial, run: None)
    run_trial(tracking, A)
    assert tracking.close([], timeout_s=1.0) == 1
    assert caplog.text.count("MLflow did not take a write") == 1


def test_runs_that_an_unanswered_call_doubled_become_one(sweep):
    """A server that is slow makes a run and answers too late: the client asks for another."""
    write(sweep, A)
    client = MlflowClient(sweep.tracking_uri)
    (kept,) = children(sweep).values()
    parent = client.get_run(kept.data.tags["mlflow.parentRunId"])
    twin = client.create_run(kept.info.experiment_id, tags=parent.data.tags)
    tags = kept.data.tags | {"mlflow.parentRunId": twin.info.run_id}
    client.create_run(kept.info.experiment_id, tags=tags)
    stray = tags | {"fingerprint": B}
    client.create_run(kept.info.experiment_id, tags=stray)
    write(sweep, B)
    runs = client.search_runs([kept.info.experiment_id])
    assert len(runs) == 3
    assert {name: run.data.tags["mlflow.parentRunId"] for name, run in children(sweep).items()} == {
        A: parent.info.run_id,
        B: parent.info.run_id,
    }


MAKING = """
import sys
import cluster.environment
cluster.environment.apply()
from pathlib import Path
from sweeps.engine.mlflow_store import make_database
print("begun", flush=True)
make_database(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_database_that_two_make_at_once_of_whom_one_is_killed_is_whole(tmp_path):
    """Killed while it makes the tables, MLflow leaves a database that it cannot open again."""
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", MAKING, str(path)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"begun\n"
    new = tmp_path / ".mlflow.db.new"
    deadline = time.monotonic() + 60
    while not (new.is_file() and new.stat().st_size > 100_000):  # some tables, not all
        assert time.monotonic() < deadline
        time.sleep(0.001)
    second = subprocess.Popen(command, stdout=subprocess.PIPE)
    first.kill()
    first.communicate()
    assert not path.exists()
    second.communicate(timeout=240)
    assert second.returncode == 0
    assert not new.exists()
    assert MlflowClient(f"sqlite:///{path}").search_experiments()[0].name == "Default"
