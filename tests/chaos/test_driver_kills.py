"""`kill -9` of a sweep's driver, again and again, each time followed by the same command."""

import random
import time

import pytest
from tests_support.driven_sweep import assert_nothing_lost_or_doubled
from tests_support.waiting import wait_until

STARTING_S = 8.0
"""About how long a driver takes to its first trial where nothing else runs."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kills", "size"),
    [
        pytest.param(2, {"trials": 4, "steps": 16}, marks=pytest.mark.slow, id="2"),
        pytest.param(20, {"trials": 12, "steps": 160}, marks=pytest.mark.chaos, id="20"),
    ],
)
def test_a_driver_killed_at_random_loses_and_doubles_nothing(driven, kills, size):
    undisturbed = driven("undisturbed", **size)
    undisturbed.run()
    killed = driven("killed", **size)
    dice = random.Random(kills)
    done, snapshots = 0, []
    for number in range(kills):
        done += _kill(killed, dice, in_training=number % 2 == 0)
        snapshots.append({path.parent.name: path.read_text() for path in _journals(killed)})
    killed.run()
    print(f"{done} of {kills} kills hit a running driver")
    assert done == kills
    assert killed.leaderboard() == undisturbed.leaderboard()
    assert_nothing_lost_or_doubled(killed)
    for snapshot in snapshots:
        for name, text in snapshot.items():
            kept = text.splitlines()[:-1]  # the last row may be newer than its checkpoint
            assert killed.journal(name)[: len(kept)] == kept


def _journals(sweep):
    return sweep.storage.glob("trials/*/metrics.jsonl")


def _kill(sweep, dice, *, in_training):
    """Kill a driver some time after its start, or after its first report, but before it has printed
    many more: a fast one would be at its end. Return whether it was still running."""
    driver = sweep.start()

    def has_come(reports):
        return sweep.printed().count("%") >= reports or driver.poll() is not None

    if in_training:
        wait_until(lambda: has_come(1), seconds=240)
    reports = 1 + dice.randint(1, 3) if in_training else 1
    moment_s = time.monotonic() + dice.uniform(0, 3.0 if in_training else STARTING_S)
    wait_until(lambda: has_come(reports) or time.monotonic() > moment_s)
    was_running = driver.poll() is None
    driver.kill()
    driver.wait()
    return was_running
