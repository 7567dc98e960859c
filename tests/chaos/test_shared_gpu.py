"""Trials that share a GPU: a real Ray and real trials; the GPU and its memory are only told."""

import json

import pytest
from tests_support.driven_sweep import DrivenSweep, assert_nothing_lost_or_doubled

from cluster.local import LocalHead
from sweeps.engine.placement import HOST_BYTES, MEMORY_STEP_BYTES

MEMORY_BYTES = HOST_BYTES + MEMORY_STEP_BYTES
"""Of its machine, more than a trial on a GPU asks for."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def gpu_head():
    """A Ray head that believes to have a GPU, and memory for two trials on it whatever others take
    just then, and where nobody has said how many threads to use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"memory": 2 * MEMORY_BYTES}))
        with LocalHead(num_cpus=2, num_gpus=1) as head:
            yield head


@pytest.fixture
def shared(gpu_head, recordings, tmp_path):
    """The sweep of tests/support/shared_gpu_sweep.py, not yet started."""
    (tmp_path / "meeting").mkdir()
    with DrivenSweep(
        storage=tmp_path / "shared",
        recordings=recordings,
        environment=gpu_head.client_environment | {"UNSHIFT_MEETING": str(tmp_path / "meeting")},
        trials=3,
        more=(),
        script="tests/support/shared_gpu_sweep.py",
    ) as sweep:
        yield sweep


@pytest.mark.slow
def test_trials_share_a_gpu_and_go_on_with_more_of_it_once_they_outgrow_their_share(
    shared, tmp_path
):
    printed = shared.run()
    assert "3 trials, 2 at a time, each on 0.125 GPU and 1 CPU" in printed
    # From an eighth to a quarter; and what was measured makes the third begin with a quarter.
    assert printed.count("goes on from its checkpoint with 0.25 of a GPU: it outgrew") == 1
    assert printed.count("goes on from its checkpoint with 0.5 of a GPU: it outgrew") == 1
    assert [trial["outcome"] for trial in shared.leaderboard()] == ["finished"] * 3
    assert_nothing_lost_or_doubled(shared)
    steps = list(range(3, 25, 3))
    readings = {
        path.name: [int(step) for step in path.read_text().split()]
        for path in (tmp_path / "meeting").glob("readings-*")
    }
    assert readings == {
        "readings-0.001": steps,
        "readings-0.002": steps,  # each step once: it went on from its checkpoint
        "readings-0.003": steps,
    }
    threads = [path.read_text() for path in (tmp_path / "meeting").glob("threads-*")]
    assert threads == ["1 1\n"] * 3  # of OpenMP and of torch: as many as each has CPUs
    print(f"reports a trial {[len(of) for of in readings.values()]}, two trials placed again")
