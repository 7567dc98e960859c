"""Memory that runs out on a worker, for real: Ray's monitor, and torch's allocator."""

import json
import os
import subprocess
import sys

import pytest
from tests_support.driven_sweep import ROOT, DrivenSweep

from cluster.local import LocalHead

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def starved_head(monkeypatch):
    """A head on which Ray takes 1% of the machine's memory for too much: it kills its own workers,
    and no process of others."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with LocalHead(num_cpus=2) as head:
        yield head


@pytest.mark.chaos
def test_a_worker_that_rays_memory_monitor_kills_has_run_out_of_memory(
    starved_head, recordings, tmp_path
):
    sweep = DrivenSweep(
        storage=tmp_path / "starved",
        recordings=recordings,
        environment=starved_head.client_environment,
        trials=1,
        steps=400,
    )
    printed = sweep.run()
    (trial,) = sweep.leaderboard()
    assert trial["outcome"] == "out_of_memory"
    assert "killed due to the node running low on memory" in printed
    assert "COMMAND" not in printed  # the table of all processes of the machine
    (run,) = sweep.runs()
    assert run.data.tags["outcome"] == "out_of_memory"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits an address space, reads /proc")
def test_the_next_trial_on_a_worker_whose_memory_ran_out_has_it_back(
    local_head, recordings, tmp_path
):
    script = ROOT / "tests" / "support" / "starved_trials.py"
    variables = os.environ | local_head.client_environment | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, tmp_path, recordings]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
    small, large, again = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [trial["outcome"] for trial in (small, large, again)]
    assert outcomes == ["finished", "out_of_memory", "finished"], done.stderr
    assert large["pid"] == small["pid"] == again["pid"]
    print(f"held after each: {[t['held'] for t in (small, large, again)]}, peak {large['peak']}")
    assert large["peak"] > small["held"] + 300e6, "else this would show nothing"
    assert large["held"] < small["held"] + 100e6
    assert again["held"] < small["held"] + 100e6
