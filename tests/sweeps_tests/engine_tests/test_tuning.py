"""A whole sweep of the driver's parts, over the stores that it may have; Ray is not in it."""

from dataclasses import dataclass

import pytest
from mlflow.tracking import MlflowClient
from ray.tune.experiment import Trial
from tests_support.driven_sweep import DrivenSweep, assert_nothing_lost_or_doubled
from tests_support.fake_driver import SETTING, STEPS, FakeDriver, Killed

from sweeps.engine.leaderboard import read_leaderboard
from sweeps.engine.mlflow_lookup import read_run
from sweeps.engine.root import Root
from sweeps.engine.store import hold_name
from sweeps.engine.sync import deliver
from sweeps.engine.tuning import Forgetful

TRIALS = 7


@dataclass(kw_only=True)
class SeenSweep(DrivenSweep):
    """A fake sweep, as whoever looks into its stores from a host sees it."""

    root: Root
    called: str

    @property
    def name(self):
        return self.called

    def journal(self, fingerprint):
        path = self.root.fetch(fingerprint) / "metrics.jsonl"
        return path.read_text().splitlines()


@pytest.fixture
def seen(study_url, host, sweep_name, tmp_path):
    return SeenSweep(
        root=host("whoever looks"),
        called=sweep_name,
        study_url=study_url,
        trials=TRIALS,
        steps=STEPS,
        storage=tmp_path,
        recordings=tmp_path,
        environment={},
    )


@pytest.fixture
def drive(study_url, host, tracking_url, sweep_name):
    """Return a function that lets a host drive the sweep."""

    def begin(host_name, *, tracking_uri=tracking_url):
        root = host(host_name)
        return FakeDriver(study_url, tracking_uri, root, sweep_name, trials=TRIALS)

    return begin


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, mlflow_tables):
    """The leaderboard of a sweep in a folder that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    root = Root.open("root", relative_to=folder, create=True)
    root.tracking_file.write_bytes(mlflow_tables.read_bytes())
    driver = FakeDriver(root.study_url, root.tracking_uri, root, "undisturbed", trials=TRIALS)
    driver.run()
    assert driver.close() == 0
    return standing(driver.study)


def standing(study):
    """Return a leaderboard without what is each store's own."""
    return [entry | {"mlflow_run_id": ""} for entry in read_leaderboard(study)["trials"]]


def test_a_sweep_whose_drivers_are_killed_ends_as_an_undisturbed_one(
    drive, seen, undisturbed, tracking_url
):
    for host_name, reports in (("first", 5), ("second", 13)):
        driver = drive(host_name)
        with pytest.raises(Killed):
            driver.run(reports=reports)
        driver.throw_away()
    driver = drive("third")
    driver.run()
    assert driver.close() == 0
    assert {entry["outcome"] for entry in undisturbed} == {"finished", "stopped", "diverged"}
    assert standing(seen.study()) == undisturbed
    assert_nothing_lost_or_doubled(seen, uri=tracking_url)
    assert_told_whole(seen, tracking_url)


def test_what_mlflow_missed_is_delivered_once_however_often(
    drive, seen, undisturbed, tracking_url, caplog
):
    driver = drive("first", tracking_uri="sqlite:////proc/nowhere/mlflow.db")
    driver.run()
    driver.throw_away()
    assert caplog.text.count("MLflow did not take a write") == 1
    assert standing(seen.study()) == undisturbed
    for _ in range(2):
        synchronize(seen, tracking_url)
        assert_nothing_lost_or_doubled(seen, uri=tracking_url)
    assert_told_whole(seen, tracking_url)


def synchronize(seen, tracking_uri):
    """Write to MLflow what it lacks, from another host than the driver's."""
    study, url = seen.study(), seen.study_url
    deliver(study, root=seen.root, study_url=url, tracking_uri=tracking_uri, show=print)


def test_a_sweep_that_another_host_drives_is_left_to_it(drive, seen, host, tracking_url):
    driver = drive("first")
    assert driver.close() == 0
    name = f"{seen.name}@{SETTING}"
    with hold_name(host("first"), seen.study_url, name):
        with pytest.raises(ValueError, match=f"sweep={name}; must not be running: its driver"):
            synchronize(seen, tracking_url)
    synchronize(seen, tracking_url)


def assert_told_whole(sweep, tracking_uri):
    """Compare MLflow with study and journals: ranks, points with their values, records."""
    client = MlflowClient(tracking_uri)
    (parent,) = sweep.runs("sweep", uri=tracking_uri)
    assert parent.info.status == "FINISHED"
    for entry in read_leaderboard(sweep.study())["trials"]:
        run = client.get_run(entry["mlflow_run_id"])
        assert run.data.tags["fingerprint"] == entry["fingerprint"]
        assert run.data.tags["rank"] == str(entry["rank"])
        assert run.data.metrics["value"] == entry["value"]
        text, rows = read_run(client, run)
        assert text == sweep.root.read_record_text(entry["fingerprint"])
        kept = sweep.root.read_rows(entry["fingerprint"])
        assert [(r["step"], r["stft"]) for r in rows] == [(r["step"], r["stft"]) for r in kept]


def test_of_an_ended_trial_tune_keeps_its_ending_and_no_numbers():
    trial = Trial("never trained", stub=True)
    trial.update_last_result({"row": {"stft": 1.0}, "ending": {"outcome": "finished"}})
    assert trial.metric_analysis and trial.metric_n_steps
    Forgetful().on_trial_complete(1, [trial], trial)
    assert not trial.metric_analysis and not trial.metric_n_steps
    assert "row" not in trial.last_result
    assert trial.last_result["ending"] == {"outcome": "finished"}
