"""`make cluster-demo`: a sweep on a cluster in miniature that loses machines and gets others."""

import contextlib
import time
from pathlib import Path

import pytest
from tests_support.driven_sweep import DrivenSweep, assert_nothing_lost_or_doubled
from tests_support.mini_cluster import run_cluster
from tests_support.waiting import wait_until

from sweeps.engine.root import Root

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

STORAGE = "s3://unshift/mini"
TRIALS, STEPS = 14, 800


UNSHIFT_SUBMIT = {"before": ("-m", "sweeps", "submit"), "after": ("--",)}
# Where hosts have no folders of their own, Ray looks for a job's log in the head's: `unshift
# submit` would not hear what workers answer.
RAY_JOB = ("-m", "ray.scripts.scripts", "job", "submit", "--working-dir", ".", "--", "python")


class SubmittedSweep(DrivenSweep):
    """A sweep that is handed to the cluster from outside."""

    def journal(self, fingerprint):
        """Return the rows of a trial's journal in the store."""
        root = Root.open(STORAGE, relative_to=Path("/"), create=False)
        path = root.fetch(fingerprint) / "metrics.jsonl"
        return path.read_text().splitlines() if path.is_file() else []

    def count_reports(self):
        """Return how many lines of progress were printed."""
        return self.printed().count("%")

    def wait_for_reports(self, more):
        """Wait until so many more are printed."""
        known = self.count_reports()
        self._wait_until(lambda: self.count_reports() >= known + more)

    def wait_for_line(self, text, *, times=1):
        """Wait until a text is printed for the nth time; return its last line."""
        self._wait_until(lambda: self.printed().count(text) >= times)
        return [line for line in self.printed().splitlines() if text in line][-1]

    def _wait_until(self, condition):
        wait_until(lambda: condition() or self.drivers[-1].poll() is not None, seconds=240)
        assert condition(), self.printed()


class Story:
    """Tells what happens, and when."""

    def __init__(self):
        self._began_s = time.monotonic()

    def tell(self, text):
        print(f"{time.monotonic() - self._began_s:6.1f} s  {text}", flush=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head with its stores, and three workers: two trials share the first one's GPU."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        workers = [
            cluster.add_worker("one", cpus=2, gpus=1),
            cluster.add_worker("two", cpus=1, gpus=1),
            cluster.add_worker("three", cpus=1, gpus=1),
        ]
        for worker in workers:
            worker.wait_until_up()
        yield cluster


@pytest.fixture
def client(cluster, monkeypatch):
    """Let this process be a client of the stores, to count what is in them."""
    for name, value in cluster.stores.env.items():
        if name.startswith(("AWS_", "PGPASSFILE", "MLFLOW_", "HOME")):
            monkeypatch.setenv(name, value)


@pytest.fixture
def submitted(cluster, client, recordings, tmp_path):
    """Return a function that makes the sweep, of so many trials, not yet submitted."""
    stores = cluster.stores
    places = ("--storage", STORAGE, "--study-storage", stores.study_url)
    with contextlib.ExitStack() as running:

        def build(*, trials):
            sweep = SubmittedSweep(
                storage=tmp_path / f"mini-{trials}",
                recordings=recordings,
                environment=cluster.client_environment,
                trials=trials,
                steps=STEPS,
                more=(*places, "--tracking-uri", stores.mlflow),
                script="tests/support/mini_cluster_sweep.py",
                study_url=stores.study_url,
                **(UNSHIFT_SUBMIT if cluster.network.has_namespaces else {"before": RAY_JOB}),
            )
            return running.enter_context(sweep)

        yield build


def test_a_sweep_outlives_its_machines(cluster, submitted):
    story = Story()
    way = "network namespaces" if cluster.network.has_namespaces else "addresses of loopback"
    story.tell(f"head and 3 workers with a GPU each, on {way}: {cluster.dashboard_url}")
    for trials, state in ((1, "cold"), (2, "warm"), (TRIALS, "warm")):
        sweep = submitted(trials=trials)
        typed_s = time.monotonic()
        driver = sweep.start()
        sweep.wait_for_reports(1)
        seconds = time.monotonic() - typed_s
        checked = [line for line in sweep.printed().splitlines() if "checked in" in line]
        story.tell(", ".join([f"{trials} trials asked of a {state} cluster", *checked]))
        story.tell(f"their first 25 steps are reported {seconds:.1f} s after the command was typed")
        if trials < TRIALS:
            assert driver.wait(240) == 0, sweep.printed()

    sweep.wait_for_reports(6)
    story.tell(next(line for line in sweep.printed().splitlines() if "at a time" in line))

    cluster.machines["one"].lose_power()
    story.tell("worker one lost its power, with two trials on it")
    sweep.wait_for_line("goes on from its checkpoint", times=2)
    story.tell("both trials go on elsewhere, from their checkpoints")
    story.tell(sweep.wait_for_line("gone)"))

    cluster.add_worker("four", cpus=2, gpus=1)
    story.tell("worker four joins")
    story.tell(sweep.wait_for_line("came)"))

    two = cluster.machines["two"]
    two.cut()
    story.tell("worker two is cut off from the network")
    sweep.wait_for_line("goes on from its checkpoint", times=3)
    two.mend()
    story.tell("its trial goes on elsewhere; its cable is back")
    wait_until(two.has_ended, seconds=120)
    two.start()
    story.tell("its Ray, which the cluster had given up, has ended by itself; it starts again")
    story.tell(sweep.wait_for_line("came)", times=2))

    cluster.machines["three"].take_back()
    story.tell("worker three is taken back, as spot is: all of its processes are asked to end")
    sweep.wait_for_line("goes on from its checkpoint", times=4)
    story.tell("its trial goes on elsewhere, from the checkpoint it wrote then")

    cluster.stores.postgres.restart(away_s=2.0)
    story.tell("PostgreSQL was killed, and is back after 2 s")
    sweep.wait_for_reports(4)

    assert driver.wait(600) == 0, sweep.printed()
    story.tell("the sweep has come to its end")
    board = sweep.leaderboard()
    rows = {trial["fingerprint"]: sweep.journal(trial["fingerprint"]) for trial in board}
    restarts = sum(trial["restarts"] for trial in board)
    assert [trial["outcome"] for trial in board] == ["finished"] * sweep.trials
    assert restarts >= 4
    assert_nothing_lost_or_doubled(sweep, uri=cluster.stores.mlflow)
    story.tell(
        f"{len(board)} trials, {sum(map(len, rows.values()))} reports, {restarts} restarts: "
        "0 lost, 0 doubled in the study, the object store and MLflow"
    )
