"""A cluster that has no machine while nothing waits, and gets more while trials do."""

import re
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from tests_support.driven_sweep import DrivenSweep, assert_nothing_lost_or_doubled
from tests_support.fake_cloud import autoscaling_head
from tests_support.waiting import wait_until

from cluster.free_ports import free_ports

MOST = 3

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture
def cloud():
    """The variables that lead to the head; its sockets' paths must be short."""
    with tempfile.TemporaryDirectory(prefix="unshift-", dir="/tmp") as folder:
        head = autoscaling_head(Path(folder), most=MOST, ports=free_ports(2), idle_minutes=0.2)
        with head as variables:
            yield variables


def test_machines_come_while_trials_wait_and_go_when_none_does(cloud, recordings, tmp_path):
    with DrivenSweep(
        storage=tmp_path / "root",
        recordings=recordings,
        environment=cloud,
        trials=10,
        steps=96,
        more=("--gpus-per-trial", "1"),
        before=("-m", "cluster.workers", "--gpus", "1", "--", sys.executable),
        script="tests/support/mini_cluster_sweep.py",
    ) as sweep:
        driver = sweep.start()
        assert driver.wait(600) == 0, sweep.printed()
        assert_nothing_lost_or_doubled(sweep)
        counts = [int(n) for n in re.findall(r"^machines: (\d+) \(", sweep.printed(), re.MULTILINE)]
        print(f"machines, with the head: {counts}")
        assert max(counts) == MOST + 1
        wait_until(lambda: count_raylets(cloud) == 1, seconds=240)
        # Killed while trials wait, a sweep leaves nothing behind that keeps machines.
        sweep.trials += 6
        driver = sweep.start()
        wait_until(lambda: f"machines: {MOST + 1} (" in sweep.printed(), seconds=240)
        driver.kill()
        wait_until(lambda: count_raylets(cloud) == 1, seconds=240)


def count_raylets(cloud):
    """Return how many nodes run, the head among them."""
    folder = str(Path(cloud["RAY_AUTH_TOKEN_PATH"]).parent)
    found = psutil.process_iter(["name", "cmdline"])
    return sum(
        p.info["name"] == "raylet" and folder in " ".join(p.info["cmdline"] or ()) for p in found
    )
