from collections import Counter

import pytest
from mlflow.tracking import MlflowClient
from tests_support.simulated_sweep import play, simulated_setting
from tests_support.simulated_trainer import validation

from sweeps.engine.study_records import read_records
from sweeps.engine.tuning import build_driver
from trainer.config import METRIC


@pytest.fixture
def setting(recordings, tmp_path):
    """A sweep of ten simulated trials over four workers."""
    given = {"data": str(recordings), "size": "demo", "max_steps": 80}
    return simulated_setting(tmp_path, trials=10, workers=4, **given)


def drive(setting):
    study = setting.open_study()
    driver = build_driver(setting, study, show=lambda line: None, is_stopping=lambda: False)
    play(driver, setting.root.trials, workers=4)
    records = read_records(study)
    assert driver.tracking.close(records, timeout_s=60.0) == 0
    return study, records


def test_a_driver_without_ray_ends_every_trial_once_and_leaves_all_of_it_in_mlflow(setting):
    study, records = drive(setting)
    assert Counter(trial.state.name for trial in study.get_trials()).keys() == {
        "COMPLETE",
        "PRUNED",
    }
    assert len({record.fingerprint for record in records}) == 10
    client = MlflowClient(setting.inputs.tracking_uri)
    experiment = client.get_experiment_by_name("simulated")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    by_name = {run.data.tags["fingerprint"]: run for run in runs}
    for record in records:
        assert (record.step == 80) == (record.outcome == "finished")
        points = client.get_metric_history(by_name[record.fingerprint].info.run_id, METRIC)
        assert [point.step for point in points] == list(range(10, record.step + 1, 10))
        told = {**setting.base.to_fields(), **record.params}
        assert record.last_value == validation(told, record.step, name=record.fingerprint)


def test_the_next_driver_of_a_study_that_is_complete_has_nothing_to_do(setting):
    study, records = drive(setting)
    again = build_driver(setting, study, show=lambda line: None, is_stopping=lambda: False)
    assert again.searcher.suggest("0") == "FINISHED"
    assert again.tracking.close(records, timeout_s=60.0) == 0
    assert len(study.get_trials()) == 10
