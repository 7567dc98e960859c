import pytest
from mlflow.tracking import MlflowClient

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.tracking import TrackedSweep, Tracking, find_trial_run, read_run
from sweeps.engine.ui import sorted_path

PARAMS = {"optimizer.lr": 0.005, "optimizer.momentum": 0.9}


def row(step, value):
    return {"step": step, "stft": value, "train_losses": [1.0], "time_ms": 1000 + step}


def record(name, outcome="finished", value=1.2):
    return TrialRecord(fingerprint=name, outcome=outcome, params=PARAMS, step=20, value=value)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty MLflow database, which takes seconds to make: copied for each test."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def sweep(tmp_path, template):
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    return TrackedSweep(
        name="lr_momentum",
        study="lr_momentum",
        do_nothing={"stft": 1.5},
        tags={"commit": "c0ffee"},
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifacts=tmp_path / "artifacts",
    )


def run_trial(tracking, name, *, outcome="finished", value=1.2):
    tracking.start_trial(name, PARAMS)
    tracking.describe_trial(name, {"device": "x86", "torch": "2.11"}, '{"config": 1}')
    tracking.add_rows(name, [row(10, 1.4)])
    tracking.add_rows(name, [row(20, value)])
    tracking.end_trial(record(name, outcome, value))


def write(sweep, *names, **changes):
    ids = {}
    tracking = Tracking(sweep, on_run=ids.__setitem__)
    for name in names:
        run_trial(tracking, name, **changes)
    assert tracking.close([record(name) for name in names]) == 0
    return ids


def children(sweep):
    client = MlflowClient(sweep.tracking_uri)
    experiment = client.get_experiment_by_name("lr_momentum")
    runs = client.search_runs([experiment.experiment_id])
    return {
        run.data.tags["fingerprint"]: run for run in runs if "mlflow.parentRunId" in run.data.tags
    }


def test_a_trial_is_one_child_run_with_params_tags_and_curve(sweep):
    ids = write(sweep, "aa")
    (run,) = children(sweep).values()
    assert ids == {"aa": run.info.run_id}
    assert run.data.params == {"optimizer.lr": "0.005", "optimizer.momentum": "0.9"}
    tags = run.data.tags
    assert (tags["outcome"], tags["rank"], tags["commit"]) == ("finished", "1", "c0ffee")
    assert (tags["device"], tags["torch"]) == ("x86", "2.11")
    history = MlflowClient(sweep.tracking_uri).get_metric_history(run.info.run_id, "stft")
    assert [(point.step, point.value) for point in history] == [(10, 1.4), (20, 1.2)]
    assert run.data.metrics["gain_percent"] == pytest.approx(20.0)  # rounding of the quotient


def test_what_is_sent_twice_is_there_once(sweep):
    first = write(sweep, "aa")
    assert write(sweep, "aa") == first
    (run,) = children(sweep).values()
    history = MlflowClient(sweep.tracking_uri).get_metric_history(run.info.run_id, "stft")
    assert [point.step for point in history] == [10, 20]


def test_a_second_driver_finds_the_same_parent(sweep):
    write(sweep, "aa")
    write(sweep, "bb")
    parents = {run.data.tags["mlflow.parentRunId"] for run in children(sweep).values()}
    assert len(parents) == 1
    assert children(sweep).keys() == {"aa", "bb"}


def test_a_failed_trial_carries_its_error(sweep):
    tracking = Tracking(sweep, on_run=lambda trial, run: None)
    tracking.start_trial("aa", PARAMS)
    failed = TrialRecord(fingerprint="aa", outcome="failed", error="boom at step 3")
    tracking.end_trial(failed, "Traceback: boom")
    tracking.close([failed])
    (run,) = children(sweep).values()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "boom at step 3")
    artifacts = MlflowClient(sweep.tracking_uri).list_artifacts(run.info.run_id)
    assert [artifact.path for artifact in artifacts] == ["error.txt"]


def test_what_a_killed_driver_did_not_write_is_made_up_for(sweep):
    killed = Tracking(sweep, on_run=lambda trial, run: None)
    killed.start_trial("aa", PARAMS)
    killed.add_rows("aa", [row(10, 1.4)])
    killed.close([])
    later = Tracking(sweep, on_run=lambda trial, run: None)
    curves = {"aa": [row(10, 1.4), row(20, 1.2)], "bb": [row(10, 1.1)]}
    later.reconcile([record("aa"), record("bb", value=1.1)], curves.__getitem__)
    later.close([])
    runs = children(sweep)
    assert {name: run.data.tags["outcome"] for name, run in runs.items()} == {
        "aa": "finished",
        "bb": "finished",
    }
    assert runs["aa"].data.metrics["stft"] == 1.2


def test_the_record_can_be_read_back(sweep):
    ids = write(sweep, "aa")
    text, rows = read_run(sweep.tracking_uri, ids["aa"])
    assert text == '{"config": 1}'
    assert rows == [{"step": 10, "stft": 1.4}, {"step": 20, "stft": 1.2}]


def test_best_is_the_finished_run_with_the_lowest_value(sweep):
    write(sweep, "aa", value=1.3)
    ids = write(sweep, "bb", value=1.1)
    write(sweep, "cc", value=0.9, outcome="stopped")
    assert find_trial_run(sweep.tracking_uri, "best:lr_momentum") == ids["bb"]
    assert find_trial_run(sweep.tracking_uri, "bb") == ids["bb"]
    with pytest.raises(ValueError, match="trial=zz; must be a trial that"):
        find_trial_run(sweep.tracking_uri, "zz")


def test_the_address_of_the_ui_sorts_a_sweep_by_validation(sweep):
    write(sweep, "aa")
    path = sorted_path(sweep.tracking_uri, "lr_momentum")
    parent = children(sweep)["aa"].data.tags["mlflow.parentRunId"]
    assert parent in path
    assert "orderByKey=metrics.%60value%60&orderByAsc=true" in path
    with pytest.raises(ValueError, match="sweep=other; must be one that"):
        sorted_path(sweep.tracking_uri, "other")


def test_a_store_that_cannot_be_reached_costs_a_warning_and_no_crash(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    unreachable = TrackedSweep(
        name="x",
        study="x",
        do_nothing={"stft": 1.5},
        tags={},
        tracking_uri=f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}",
        artifacts=None,
    )
    tracking = Tracking(unreachable, on_run=lambda trial, run: None)
    run_trial(tracking, "aa")
    assert tracking.close([], timeout_s=1.0) > 0
    assert caplog.text.count("MLflow does not answer") == 1
