"""A sweep whose every part is elsewhere: trials in an object store, study and record in servers."""

import json
import shutil
import signal
import threading
from pathlib import Path

import psutil
import pytest
import sqlalchemy
from filelock import Timeout
from tests_support.driven_sweep import DrivenSweep, assert_nothing_lost_or_doubled
from tests_support.stores import give_home
from tests_support.titles import is_trial_worker, trial_workers_below
from tests_support.training import trained_part
from tests_support.waiting import wait_until

from sweeps.engine import server_lock
from sweeps.engine.root import Root
from sweeps.engine.server_lock import ServerLock
from sweeps.engine.store import open_optuna

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class SweepElsewhere(DrivenSweep):
    """A sweep on stores by URL, driven from a host that can be another each time."""

    def journal(self, fingerprint):
        """Return the rows of a trial's journal in the store."""
        root = Root.open("s3://unshift/drill", relative_to=Path("/"), create=False)
        path = root.fetch(fingerprint) / "metrics.jsonl"
        return path.read_text().splitlines() if path.is_file() else []


@pytest.fixture
def sweep(stores, client, recordings, tmp_path):
    """A sweep of 4 trials that trains two at once, with a Ray of its own."""
    places = ("--storage", "s3://unshift/drill", "--study-storage", stores.study_url)
    with SweepElsewhere(
        storage=tmp_path / "unused",
        recordings=recordings,
        environment=stores.client_environment,
        trials=4,
        steps=400,
        more=(*places, "--tracking-uri", stores.mlflow),
        study_url=stores.study_url,
    ) as sweep:
        yield sweep


@pytest.fixture
def new_host(sweep, stores, tmp_path):
    """Return a function that gives the sweep another host: a home folder with nothing in it."""

    def move(name):
        home = tmp_path / name
        give_home(home, stores.secrets)
        sweep.environment["HOME"] = str(home)
        return home

    return move


def test_another_host_goes_on_after_the_head_is_gone_and_its_database_was_away(
    sweep, stores, new_host
):
    first = new_host("first")
    driver = sweep.start()
    wait_until(lambda: sweep.printed().count("%") > 2, seconds=240)
    known = sweep.printed().count("%")
    stores.postgres.restart(away_s=2.0)
    wait_until(lambda: sweep.printed().count("%") > known + 2, seconds=240)
    workers = trial_workers_below(psutil.Process(driver.pid))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert workers
    wait_until(lambda: not any(map(is_trial_worker, workers)))  # they end by themselves
    before = {name: rows_of(sweep, name) for name in trained_so_far(sweep)}
    assert any(before.values())
    assert "interrupted" in {trial["outcome"] for trial in sweep.leaderboard()}
    shutil.rmtree(first)
    new_host("second")
    sweep.run(timeout_s=400)
    assert_nothing_lost_or_doubled(sweep, uri=stores.mlflow)
    for name, rows in before.items():
        assert rows_of(sweep, name)[: len(rows)] == rows
    print(f"{len(before)} trials, {sum(map(len, before.values()))} reports: 0 lost, 0 doubled")


def rows_of(sweep, name):
    """Return a trial's journal but for what a row that is trained again says of its time."""
    return trained_part([json.loads(line) for line in sweep.journal(name)])


def trained_so_far(sweep):
    return [trial["fingerprint"] for trial in sweep.leaderboard()]


def test_a_name_is_held_again_when_its_server_was_started_anew(stores, client, monkeypatch):
    monkeypatch.setattr(server_lock, "_SECONDS_BETWEEN_LOOKS", 0.1)
    with ServerLock(stores.study_url, "lr@01234567") as lock:
        stores.postgres.restart(away_s=1.0)
        wait_until(lambda: is_granted(lock), seconds=60)
        assert is_held(stores, "lr@01234567")


def test_who_has_lost_a_name_to_another_is_asked_to_end(stores, client, monkeypatch):
    monkeypatch.setattr(server_lock, "_SECONDS_BETWEEN_LOOKS", 0.1)
    asked, is_taken, take_again = [], threading.Event(), ServerLock._take_again

    def take_too_late(lock):
        is_taken.wait()
        take_again(lock)

    monkeypatch.setattr(ServerLock, "_take_again", take_too_late)
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        with ServerLock(stores.study_url, "lr@01234567"):
            stores.postgres.forget_connections()
            with ServerLock(stores.study_url, "lr@01234567", timeout_s=60):
                is_taken.set()
                assert wait_until(lambda: asked, seconds=60) == [True]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_name_is_free_before_its_server_has_forgotten_the_connection(stores, client):
    lock = ServerLock(stores.study_url, "lr@01234567")
    # Its pool keeps open what is closed: as for a moment a server does.
    lock._engine = sqlalchemy.create_engine(stores.study_url, isolation_level="AUTOCOMMIT")
    with lock:
        assert is_held(stores, "lr@01234567")
    assert not is_held(stores, "lr@01234567")
    lock._engine.dispose()


def is_granted(lock):
    """Return whether somebody has the lock; unlike who tries to take it, this disturbs nobody."""
    key = "(classid::bigint << 32 | objid::bigint)"
    with lock._engine.connect() as connection:
        ask = "SELECT granted FROM pg_locks WHERE locktype = 'advisory' AND "
        return connection.exec_driver_sql(f"{ask}{key} = {lock._key}").scalar()


def is_held(stores, name):
    try:
        with ServerLock(stores.study_url, name):
            return False
    except Timeout:
        return True


def test_a_study_waits_for_its_server(stores, client, caplog):
    storage = open_optuna(stores.study_url, for_driver=True)
    before = len(storage.get_all_studies())
    stores.postgres.restart()
    assert len(storage.get_all_studies()) == before
    storage._backend.engine.dispose()
