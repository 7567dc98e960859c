"""A real MLflow server that fails: nothing waits for it, and nothing is lost or doubled."""

import logging
import threading
import time

import pytest
import requests
from click.testing import CliRunner
from mlflow.tracking import MlflowClient
from optuna.storages import RDBStorage
from tests_support.driven_sweep import assert_nothing_lost_or_doubled
from tests_support.fake_sweep import open_sweep
from tests_support.flaky_server import SLOW_S, FlakyServer, serve_mlflow
from tests_support.waiting import wait_until

from cluster.free_ports import free_ports
from sweeps.__main__ import commands
from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root
from sweeps.engine.store import open_study
from sweeps.engine.study_records import read_records
from sweeps.engine.sync import track
from sweeps.engine.tracking import Tracking
from trainer.journal import Journal

STEPS = (10, 20, 30, 40)
FACTS = {"do_nothing": {"stft": 1.5}, "data_fingerprint": "d" * 16, "size": "demo"}


@pytest.fixture(scope="module")
def backend_port(tmp_path_factory):
    with serve_mlflow(tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture
def server(backend_port):
    flaky = FlakyServer(backend_port)
    yield flaky
    flaky.close()


@pytest.fixture
def callers(monkeypatch):
    """The names of the threads that have asked a server."""
    names, send = set(), requests.Session.send

    def note_and_send(*arguments, **named):
        names.add(threading.current_thread().name)
        return send(*arguments, **named)

    monkeypatch.setattr(requests.Session, "send", note_and_send)
    return names


class OneTrial:
    """A sweep of one trial that reports four times, under a name of its own on the server."""

    def __init__(self, folder, uri, name):
        self.name, self.uri = name, uri
        self.root = Root(path=folder)
        self.study = open_study(RDBStorage(self.root.study_url), name, "0123abcd", lambda: FACTS)
        self.sweep = open_sweep(self.study, trials=1)
        self.waited_s = 0.0
        tracked = track(self.study, root=self.root, tracking_uri=uri, commit="c0ffee")
        self.tracking = Tracking(tracked, on_run=lambda trial, run: None)

    def train(self, between):
        """Train, calling `between(number of reports)` before, between and after the reports."""
        suggestion = self.sweep.next()
        fingerprint = suggestion.fingerprint
        folder = self.root.trial_folder(fingerprint)
        folder.mkdir(parents=True)
        journal = Journal(folder)
        between(0)
        self._timed(self.tracking.start_trial, fingerprint, suggestion.fields, '{"config": 0}')
        for number, step in enumerate(STEPS, start=1):
            row = {"step": step, "stft": 2.0 - step / 100, "time_ms": 1000 + step}
            journal.append(row)
            self.sweep.report(fingerprint, step=step, value=row["stft"])
            self._timed(self.tracking.add_row, fingerprint, row)
            time.sleep(0.3)
            between(number)
        record = TrialRecord(
            fingerprint=fingerprint,
            outcome="finished",
            params=suggestion.fields,
            step=STEPS[-1],
            value=2.0 - STEPS[-1] / 100,
        )
        self.sweep.settle(record)
        self._timed(self.tracking.end_trial, record, config="")

    def _timed(self, call, *arguments, **named):
        began_s = time.perf_counter()
        call(*arguments, **named)
        self.waited_s += time.perf_counter() - began_s

    def synchronize(self):
        """Run `unshift sync`."""
        places = ["--storage", str(self.root.path), "--tracking-uri", self.uri]
        return CliRunner().invoke(commands, ["sync", self.name, *places])

    def told(self):
        """Return what MLflow has of the trial: its outcome, and its points of each metric."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.name)
        (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
        (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
        assert parent.info.status == "FINISHED"
        points = {
            name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
            for name in ("stft", "value", "gain_percent")
        }
        return run.data.tags["outcome"], points


WHOLE = (
    "finished",
    {
        "stft": [(step, 2.0 - step / 100) for step in STEPS],
        "value": [(40, 1.6)],
        "gain_percent": [(40, pytest.approx(-100 / 15))],  # the quotient's rounding
    },
)


def outages():
    """Every fault at every time; three of them stand for all in `make test`."""
    short = {("start", "500"), ("middle", "down"), ("end", "slow")}
    for when in ("start", "middle", "end", "throughout"):
        for mode in ("down", "slow", "500"):
            mark = pytest.mark.slow if (when, mode) in short else pytest.mark.chaos
            yield pytest.param(when, mode, marks=mark, id=f"{when}-{mode}")


@pytest.mark.parametrize(("when", "mode"), list(outages()))
def test_training_never_waits_and_what_was_missed_is_delivered_once(
    server, callers, tmp_path, caplog, when, mode
):
    begins, ends = {"start": (0, 2), "middle": (1, 3), "end": (3, 9), "throughout": (0, 9)}[when]
    trial = OneTrial(tmp_path, server.uri, f"{mode}-{when}")

    def wait_until_met():
        wait_until(lambda: callers if mode == "slow" else "MLflow did not take" in caplog.text)

    def switch(reports):
        if reports == begins:
            server.mode = mode
        if reports == ends:
            wait_until_met()
            server.mode = "up"

    trial.train(switch)
    wait_until_met()
    assert trial.waited_s < SLOW_S and callers == {"mlflow-writer"}
    is_over = when in ("start", "middle")
    missing = trial.tracking.close(read_records(trial.study), timeout_s=60.0 if is_over else 4.0)
    assert missing == 0 or not is_over
    server.mode = "up"
    trial.tracking._thread.join(30)  # it would end with its process; here it finishes its call
    for _ in range(2):
        synced = trial.synchronize()
        assert synced.exit_code == 0, synced.output
        assert trial.told() == WHOLE
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    expected = ["MLflow did not take a write"] if mode != "slow" else []
    assert [r.getMessage().partition(",")[0] for r in warnings] == expected
    print(f"{mode} at {when}: {1e3 * trial.waited_s:.1f} ms in 6 calls, {missing} trials missing")


@pytest.mark.slow
def test_a_server_that_nobody_started_is_synced_to_when_it_comes(backend_port, tmp_path, caplog):
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    trial = OneTrial(tmp_path, nobody, "nobody")
    trial.train(lambda reports: None)
    assert trial.tracking.close(read_records(trial.study), timeout_s=2.0) == 1
    refused = trial.synchronize()
    assert f"tracking-uri={nobody}; must be an MLflow store or server" in str(refused.exception)
    trial.uri = f"http://127.0.0.1:{backend_port}"
    assert trial.synchronize().exit_code == 0
    assert trial.told() == WHOLE


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_whole_sweep_runs_without_its_server_and_the_same_command_delivers(driven, server):
    server.mode = "down"
    sweep = driven("outage", trials=2, more=("--concurrency", "1", "--tracking-uri", server.uri))
    assert "MLflow lacks something of 2 trials: the same command writes it" in sweep.run()
    before = sweep.leaderboard()
    assert {trial["outcome"] for trial in before} <= {"finished", "stopped"}
    server.mode = "up"
    assert "MLflow lacks" not in sweep.run()
    assert sweep.leaderboard() == before
    assert_nothing_lost_or_doubled(sweep, uri=server.uri)
