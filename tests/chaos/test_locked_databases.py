"""A database that another process holds: whoever writes waits, and nothing is lost."""

import contextlib
import subprocess
import sys
import threading
import time

import pytest
from mlflow.tracking import MlflowClient
from tests_support.fake_sweep import open_sweep
from tests_support.waiting import wait_until

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root
from sweeps.engine.store import open_optuna, open_study
from sweeps.engine.study_records import read_records
from sweeps.engine.sync import track
from sweeps.engine.tracking import Tracking

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""
FACTS = {"do_nothing": {"stft": 1.5}, "data_fingerprint": "d" * 16, "size": "demo"}

each_time = pytest.mark.parametrize(
    "seconds", [pytest.param(3, marks=pytest.mark.slow), pytest.param(30, marks=pytest.mark.chaos)]
)


@contextlib.contextmanager
def held(path):
    """Keep a database locked by another process while the block lasts."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield  # and then its standard input ends


@pytest.fixture
def root(tmp_path):
    return Root(path=tmp_path)


def begin(root):
    study = open_study(open_optuna(root.study_url), "lr_momentum", "0123abcd", lambda: FACTS)
    sweep = open_sweep(study, trials=1)
    return study, sweep, sweep.next()


def finished(suggestion):
    return TrialRecord(
        fingerprint=suggestion.fingerprint, outcome="finished", step=20, value=1.2, last_value=1.2
    )


@each_time
def test_a_study_that_is_locked_is_waited_for(root, seconds):
    study, sweep, suggestion = begin(root)
    named = {"fingerprint": suggestion.fingerprint, "step": 10, "value": 1.3}
    reporting = threading.Thread(target=sweep.report, kwargs=named)
    with held(root.path / "optuna.db"):
        reporting.start()
        reporting.join(seconds)
        assert reporting.is_alive()
    began_s = time.monotonic()
    reporting.join()
    late_s = time.monotonic() - began_s
    sweep.settle(finished(suggestion))
    print(f"optuna.db locked for {seconds} s: a report came {late_s:.1f} s after that")
    assert study.get_trials()[0].intermediate_values == {10: 1.3}
    assert [record.outcome for record in read_records(study)] == ["finished"]


@pytest.mark.slow
def test_a_study_waits_a_minute_before_it_gives_up(root):
    study, _, _ = begin(root)
    with study._storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


@each_time
def test_a_record_that_is_locked_is_written_later_and_nobody_waits(root, seconds):
    study, sweep, suggestion = begin(root)
    tracked = track(study, root=root, tracking_uri=root.tracking_uri, commit="c0ffee")
    ids = {}
    tracking = Tracking(tracked, on_run=ids.__setitem__)
    tracking.start_trial(suggestion.fingerprint, suggestion.fields, "{}")
    wait_until(lambda: ids)
    with held(root.path / "mlflow.db"):
        began_s = time.monotonic()
        for step in (10, 20):
            tracking.add_row(suggestion.fingerprint, {"step": step, "stft": 1.2, "time_ms": step})
        tracking.end_trial(finished(suggestion), config="")
        waited_s = time.monotonic() - began_s
        assert waited_s < 3  # MLflow waits 20 s for a lock
        time.sleep(seconds)
    began_s = time.monotonic()
    assert tracking.close([], timeout_s=60.0) == 0
    took_s = time.monotonic() - began_s
    print(
        f"mlflow.db locked for {seconds} s: calls took {1e3 * waited_s:.1f} ms, and all was "
        f"written {took_s:.1f} s after that"
    )
    client = MlflowClient(root.tracking_uri)
    run = client.get_run(ids[suggestion.fingerprint])
    assert run.data.tags["outcome"] == "finished"
    points = client.get_metric_history(run.info.run_id, "stft")
    assert [point.step for point in points] == [10, 20]
