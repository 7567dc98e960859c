import dataclasses
import gc
import tracemalloc

from mlflow.tracking import MlflowClient
from tests_support.simulated_sweep import open_driver, play, simulated_setting
from tests_support.simulated_trainer import validation
from tests_support.waiting import wait_until

from sweeps.engine.study_records import read_records
from trainer.config import METRIC


def test_a_driver_without_ray_ends_every_trial_once_and_leaves_all_of_it_in_mlflow(
    recordings, tmp_path, mlflow_tables
):
    """Ten simulated trials over four workers, as tests/benchmarks/scale.py plays thousands.

    The next driver knows what the first has seen, and tells a record that knows nothing yet.
    """
    given = {"data": str(recordings), "size": "demo", "max_steps": 80}
    setting = simulated_setting(tmp_path, trials=10, workers=4, **given)
    for name in ("mlflow.db", "new.db"):
        (tmp_path / name).write_bytes(mlflow_tables.read_bytes())
    study = setting.open_study()
    driver = open_driver(setting, study)
    play(driver, setting.root.trials, workers=4)
    records = read_records(study)
    assert driver.tracking.close(records, timeout_s=240.0) == 0
    assert {trial.state.name for trial in study.get_trials()} == {"COMPLETE", "PRUNED"}
    assert len({record.fingerprint for record in records}) == 10
    runs = trial_runs(setting.inputs.tracking_uri)
    for record in records:
        assert (record.step == 80) == (record.outcome == "finished")
        told = {**setting.base.to_fields(), **record.params}
        assert record.last_value == validation(told, record.step, name=record.fingerprint)
        assert runs[record.fingerprint] == list(range(10, record.step + 1, 10))
    elsewhere = dataclasses.replace(setting.inputs, tracking_uri=f"sqlite:///{tmp_path / 'new.db'}")
    again = open_driver(dataclasses.replace(setting, inputs=elsewhere), study)
    assert seen_at_rungs(again.stopper) == seen_at_rungs(driver.stopper)
    assert again.searcher.suggest("0") == "FINISHED"
    assert again.tracking.close(records, timeout_s=240.0) == 0
    assert trial_runs(elsewhere.tracking_uri).keys() == runs.keys()


def test_a_driver_keeps_little_of_the_trials_that_ended(recordings, tmp_path, mlflow_tables):
    """Of 900, a real one's process may keep 50 MB (tests/chaos/test_bounded_memory.py): not a row
    of a long trial."""
    given = {"data": str(recordings), "size": "demo", "max_steps": 20_000}
    given["settings"] = ("report_every=10000",)
    setting = simulated_setting(tmp_path, trials=60, workers=4, **given)
    setting.root.tracking_file.write_bytes(mlflow_tables.read_bytes())
    study = setting.open_study()
    driver = open_driver(setting, study)
    ended = []

    def look():
        if not ended and sum(trial.state.is_finished() for trial in study.get_trials()) == 20:
            ended.append(20)
            wait_until(lambda: is_written(driver.tracking), seconds=240)  # with what that imports
            tracemalloc.start()

    try:
        play(driver, setting.root.trials, workers=4, on_step=look)
        assert driver.tracking.close(read_records(study), timeout_s=240.0) == 0
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended
    assert kept_bytes / 40 < 50e6 / 900


def is_written(tracking):
    """Return whether MLflow has all so far: its first writes of each kind leave memory behind."""
    return not (tracking._due or tracking._in_hand)


def seen_at_rungs(stopper):
    """Return what was seen of trials where they are judged, which they are not at their end."""
    return [(step, seen) for step, seen in stopper._brackets[0]._rungs if step < 80]


def trial_runs(uri):
    """Return the steps of each trial's points of the metric by fingerprint."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("simulated")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    return {
        run.data.tags["fingerprint"]: [
            point.step for point in client.get_metric_history(run.info.run_id, METRIC)
        ]
        for run in runs
    }
