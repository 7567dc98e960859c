"""A sweep whose every part is elsewhere: trials in an object store, study and record in servers."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from filelock import Timeout
from tests_support.driven_sweep import DrivenSweep, assert_nothing_lost_or_doubled, wait_until
from tests_support.stores import give_home, serve_stores

from sweeps.engine.root import Root
from sweeps.engine.store import hold_in_database, open_optuna

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENT = ("AWS_", "PGPASSFILE", "MLFLOW_")


class SweepElsewhere(DrivenSweep):
    """A sweep on stores by URL, driven from a host that can be another each time."""

    def journal(self, fingerprint):
        """Return the rows of a trial's journal in the store."""
        root = Root.open("s3://unshift/drill", relative_to=Path("/"), create=False)
        path = root.fetch(fingerprint) / "metrics.jsonl"
        return path.read_text().splitlines() if path.is_file() else []


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    with serve_stores(tmp_path_factory.mktemp("stores")) as served:
        yield served


@pytest.fixture
def client(stores, monkeypatch):
    """Let this process be a client of the stores."""
    for name, value in stores.env.items():
        if name.startswith((*CLIENT, "HOME")):
            monkeypatch.setenv(name, value)


@pytest.fixture
def sweep(stores, client, recordings, tmp_path):
    """A sweep of 4 trials that trains two at once, with a Ray of its own."""
    given = {name: value for name, value in stores.env.items() if name.startswith(CLIENT)}
    places = ("--storage", "s3://unshift/drill", "--study-storage", stores.study_url)
    sweep = SweepElsewhere(
        storage=tmp_path / "unused",
        recordings=recordings,
        environment=given,
        trials=4,
        steps=400,
        more=(*places, "--tracking-uri", stores.mlflow),
        study_url=stores.study_url,
    )
    yield sweep
    for driver in sweep.drivers:
        driver.kill()
        driver.wait()


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
    wait_until(lambda: sweep.printed().count("%") > 2, seconds=180)
    stores.postgres.restart(away_s=2.0)
    known = sweep.printed().count("%")
    wait_until(lambda: sweep.printed().count("%") > known + 2, seconds=120)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(5)  # in which its Ray ends
    before = {name: sweep.journal(name) for name in trained_so_far(sweep)}
    assert any(before.values())
    shutil.rmtree(first)
    new_host("second")
    sweep.run(timeout_s=400)
    assert_nothing_lost_or_doubled(sweep, uri=stores.mlflow)
    for name, rows in before.items():
        assert sweep.journal(name)[: len(rows)] == rows
    print(f"{len(before)} trials, {sum(map(len, before.values()))} reports: 0 lost, 0 doubled")


def trained_so_far(sweep):
    return [trial["fingerprint"] for trial in sweep.leaderboard()]


def test_a_name_is_held_by_one_on_all_hosts(stores, client):
    with hold_in_database(stores.study_url, "lr@01234567"):
        with hold_in_database(stores.study_url, "lr@89abcdef"):
            pass
        with pytest.raises(Timeout), hold_in_database(stores.study_url, "lr@01234567"):
            pass
    with hold_in_database(stores.study_url, "lr@01234567"):
        pass


def test_a_study_waits_for_its_server(stores, client, caplog):
    storage = open_optuna(stores.study_url, for_driver=True)
    before = len(storage.get_all_studies())
    stores.postgres.restart()
    assert len(storage.get_all_studies()) == before
    storage._backend.engine.dispose()
