import pytest
from tests_support.fake_sweep import new_study, open_sweep, settle

from sweeps.engine.leaderboard import format_leaderboard, read_leaderboard
from sweeps.engine.store import keep_run_id

CONTRACT = {
    "fingerprint",
    "rank",
    "outcome",
    "step",
    "value",
    "last_value",
    "gain_percent",
    "parameters",
    "seconds",
    "peak_memory_bytes",
    "params",
    "mlflow_run_id",
}


@pytest.fixture
def study():
    study = new_study()
    study.set_user_attr("facts", {"sweep": "fake", "do_nothing": {"stft": 1.5}})
    sweep = open_sweep(study)
    first = settle(sweep, sweep.next(), "finished", curve={10: 1.6, 20: 1.2, 30: 1.3})
    settle(sweep, sweep.next(), "finished", curve={30: 1.8})
    settle(sweep, sweep.next(), "stopped", curve={10: 1.0})
    settle(sweep, sweep.next(), "diverged")
    keep_run_id(study, first.fingerprint, "run-of-the-first")
    return study


def test_json_has_every_field_of_the_contract(study):
    board = read_leaderboard(study)
    assert {"sweep", "metric", "do_nothing", "trials"} <= board.keys()
    assert (board["sweep"], board["metric"], board["do_nothing"]) == ("fake", "stft", 1.5)
    assert all(trial.keys() >= CONTRACT for trial in board["trials"])


def test_the_value_is_the_best_and_the_last_stands_beside_it(study):
    best = read_leaderboard(study)["trials"][0]
    assert (best["value"], best["last_value"], best["rank"]) == (1.2, 1.3, 1)
    assert best["gain_percent"] == pytest.approx(20.0)  # float rounding of the quotient
    assert best["mlflow_run_id"] == "run-of-the-first"


def test_do_nothing_stands_above_what_it_beats(study):
    lines = format_leaderboard(read_leaderboard(study)).splitlines()
    order = [
        next(word for word in ("nothing", "finished", "stopped", "diverged") if word in line)
        for line in lines
        if any(word in line for word in ("do nothing", "finished ", "stopped ", "diverged "))
        and "trials" not in line
    ]
    assert order[:3] == ["finished", "nothing", "nothing"]  # the third says: worse than nothing
    assert "1 of 2 finished trials are better than doing nothing" in lines


def test_a_trial_that_does_not_beat_do_nothing_says_so(study):
    lines = format_leaderboard(read_leaderboard(study)).splitlines()
    (worse,) = [line for line in lines if "1.8000" in line and "finished" in line]
    assert "-20.0 % worse than nothing" in worse


def test_an_error_is_told_below_the_table(study):
    sweep = open_sweep(study)
    from sweeps.engine.outcomes import TrialRecord

    suggestion = sweep.next()
    sweep.settle(
        TrialRecord(fingerprint=suggestion.fingerprint, outcome="failed", error="disk on fire")
    )
    text = format_leaderboard(read_leaderboard(study))
    assert f"{suggestion.fingerprint} failed: disk on fire" in text


def test_what_a_sweep_says_of_its_trials_stands_where_else_their_fields_do():
    study = new_study()
    study.set_user_attr("facts", {"sweep": "fake", "do_nothing": {"stft": 1.5}})
    sweep = open_sweep(
        study, annotate=lambda fields: {"run": "output27", "log said": "much better"}
    )
    settle(sweep, sweep.next(), "finished", curve={10: 1.2})
    board = read_leaderboard(study)
    assert board["trials"][0]["notes"] == {"run": "output27", "log said": "much better"}
    assert board["trials"][0]["params"].keys() == {"optimizer.lr", "optimizer.momentum"}
    table = format_leaderboard(board)
    assert "much better" in table and "log said" in table
    assert "momentum" not in table
