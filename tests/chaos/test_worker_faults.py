"""Workers that are killed, asked to end, or about to train what another trains already."""

import json
import shutil
import time

import psutil
import pytest
from tests_support.driven_sweep import assert_nothing_lost_or_doubled
from tests_support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)


def kill_after_a_report(sweep, trial_workers, *, known=0):
    """Kill the worker that trains after it has added to the journals; return the rows then."""
    (worker,) = wait_until(lambda: count_rows(sweep) > known and trial_workers(), seconds=240)
    worker.kill()
    psutil.wait_procs([worker])
    return count_rows(sweep)


def count_rows(sweep):
    return sum(
        len(path.read_text().splitlines()) for path in sweep.storage.glob("trials/*/*.jsonl")
    )


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_trial_goes_on_from_its_checkpoint(
    driven, trial_workers
):
    sweep = driven("killed", trials=1, steps=400)  # long enough to be caught in the middle
    driver = sweep.start()
    rows = kill_after_a_report(sweep, trial_workers)
    (path,) = sweep.storage.glob("trials/*/metrics.jsonl")
    before = path.read_text().splitlines()[: rows - 1]  # the last may be newer than the checkpoint
    assert driver.wait(240) == 0
    (trial,) = sweep.leaderboard()
    assert (trial["outcome"], trial["restarts"]) == ("finished", 1)
    assert path.read_text().splitlines()[: len(before)] == before
    assert_nothing_lost_or_doubled(sweep)
    (run,) = sweep.runs()
    assert run.data.tags["restarts"] == "1"
    assert sweep.printed().count("goes on from its checkpoint: its worker died") == 1


@pytest.mark.chaos
def test_a_trial_whose_workers_die_four_times_has_failed_and_the_sweep_goes_on(
    driven, trial_workers
):
    sweep = driven("killed", trials=2, steps=160)
    driver = sweep.start()
    rows = 0
    for _ in range(4):
        rows = kill_after_a_report(sweep, trial_workers, known=rows)
    assert driver.wait(240) == 0
    other, killed = sweep.leaderboard()
    assert other["outcome"] in ("finished", "stopped")
    assert (killed["outcome"], killed["restarts"], other["restarts"]) == ("failed", 3, 0)


@pytest.mark.slow
def test_a_worker_that_dies_between_two_trials_fails_neither(driven):
    sweep = driven("mortal", trials=3, steps=16, script="tests/support/mortal_sweep.py")
    printed = sweep.run()
    board = sweep.leaderboard()
    assert [trial["outcome"] for trial in board] == ["finished"] * 3
    assert sorted(trial["restarts"] for trial in board) == [0, 1, 1]
    assert printed.count("goes on from its checkpoint: its worker died") == 2
    assert "Trials did not complete" not in printed
    assert_nothing_lost_or_doubled(sweep)


@pytest.mark.chaos
def test_recordings_that_are_away_end_the_sweep_which_goes_on_when_they_are_back(driven, tmp_path):
    sweep = driven("away", trials=3, steps=200)
    sweep.recordings = shutil.copytree(sweep.recordings, tmp_path / "music")
    driver = sweep.start()
    wait_until(lambda: "%" in sweep.printed(), seconds=240)
    sweep.recordings.rename(tmp_path / "elsewhere")
    assert driver.wait(240) == 2
    line = sweep.printed().splitlines()[-1]
    assert f"data.path={sweep.recordings}; must be an existing folder" in line
    assert "the same command goes on" in line
    first, *others = (trial["outcome"] for trial in sweep.leaderboard())
    assert (first, set(others)) == ("finished", {"interrupted"})
    assert "must be an existing folder" in sweep.run(expect=2)
    (tmp_path / "elsewhere").rename(sweep.recordings)
    sweep.run()
    assert {t["outcome"] for t in sweep.leaderboard()} <= {"finished", "stopped"}
    assert_nothing_lost_or_doubled(sweep)


@pytest.mark.slow
def test_a_worker_asked_to_end_writes_its_checkpoint_and_the_trial_resumes(driven, trial_workers):
    sweep = driven("asked", trials=1, steps=400)
    driver = sweep.start()
    (worker,) = wait_until(lambda: "%" in sweep.printed() and trial_workers(), seconds=240)
    asked_s = time.monotonic()
    worker.terminate()
    assert driver.wait(240) == 0
    print(f"SIGTERM to a worker: the sweep ended {time.monotonic() - asked_s:.1f} s later")
    (trial,) = sweep.leaderboard()
    assert trial["outcome"] == "interrupted"
    before = sweep.journal(trial["fingerprint"])
    assert 0 < len(before) < 16
    assert "finished" in sweep.run()
    assert sweep.journal(trial["fingerprint"])[: len(before)] == before
    assert sweep.leaderboard()[0]["restarts"] == 0
    assert_nothing_lost_or_doubled(sweep)


@pytest.mark.slow
def test_two_sweeps_never_train_one_trial_at_the_same_time(driven):
    first = driven("shared", trials=2, steps=64)
    second = driven("shared", trials=2, steps=64, script="tests/support/twin_sweep.py")
    drivers = [first.start(), second.start()]
    assert [driver.wait(240) for driver in drivers] == [0, 0], second.printed()
    assert {t["fingerprint"] for t in first.leaderboard()} == {
        t["fingerprint"] for t in second.leaderboard()
    }
    for path in first.storage.glob("trials/*/metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        assert steps == list(range(8, steps[-1] + 1, 8))
    for one, other in zip(first.leaderboard(), second.leaderboard(), strict=True):
        if one["outcome"] == other["outcome"] == "finished":
            assert one["value"] == other["value"]
    for sweep in (first, second):
        assert len(sweep.runs()) == 2
