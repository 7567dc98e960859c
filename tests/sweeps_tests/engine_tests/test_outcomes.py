import pytest

from sweeps.engine.outcomes import OUTCOMES, TrialRecord, gain_percent, rank


def record(name, outcome, *, step=100, value=None):
    return TrialRecord(fingerprint=name, outcome=outcome, step=step, value=value)


def names(records):
    return [each.fingerprint for each in records]


def test_finished_trials_rank_by_value_whatever_stopped_ones_had():
    stopped = record("early", "stopped", step=10, value=0.1)
    finished = [record("worse", "finished", value=1.5), record("better", "finished", value=1.4)]
    assert names(rank([stopped, *finished])) == ["better", "worse", "early"]


def test_stopped_trials_rank_by_how_far_they_came_then_by_value():
    records = [
        record("short", "stopped", step=50, value=0.5),
        record("long-bad", "stopped", step=100, value=2.0),
        record("long-good", "stopped", step=100, value=1.0),
    ]
    assert names(rank(records)) == ["long-good", "long-bad", "short"]


def test_what_is_no_number_ranks_below_every_number():
    values = [float("nan"), 1.0, float("nan"), 0.5, float("inf")]
    records = [record(str(n), "diverged", value=value) for n, value in enumerate(values)]
    assert names(rank(records)) == ["3", "1", "0", "2", "4"]


def test_outcomes_rank_in_the_order_of_the_contract():
    records = [record(outcome, outcome, value=1.0) for outcome in reversed(OUTCOMES)]
    assert names(rank(records)) == [
        "finished",
        "stopped",
        "interrupted",
        "diverged",
        "out_of_memory",
        "failed",
    ]


def test_a_trial_without_a_value_ranks_below_one_with_it():
    records = [record("none", "failed"), record("some", "failed", value=3.0)]
    assert names(rank(records)) == ["some", "none"]


@pytest.mark.parametrize(
    ("value", "do_nothing", "gain"),
    [(1.2, 1.5, 20.0), (1.8, 1.5, -20.0), (None, 1.5, None), (1.0, 0.0, None)],
)
def test_gain_is_the_share_below_do_nothing(value, do_nothing, gain):
    expected = None if gain is None else pytest.approx(gain)  # float rounding of the quotient
    assert gain_percent(value, do_nothing) == expected


def test_a_record_survives_json():
    original = TrialRecord(
        fingerprint="ab", outcome="diverged", params={"optimizer.lr": 0.1}, step=3, error="nan"
    )
    assert TrialRecord.from_json(original.to_json()) == original


DAMAGED = {
    "value": ["1.2", True, [1.2], 10**400, None, float("nan"), float("inf")],
    "last_value": ["1.2", {}],
    "seconds": ["7", -1.0, float("nan")],
    "step": [None, 1.5, -1, "3", 2**70],
    "restarts": [None, -1],
    "parameters": [1.5, -1],
    "peak_memory_bytes": ["1", -1],
    "params": [None, []],
    "notes": [[], {"run": 7}],
    "error": [None, 7],
    "taken_over_from": [None, ["x"]],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_record_with_what_no_sweep_writes_is_refused(name):
    whole = record("ab", "finished", value=1.2).to_json()
    assert TrialRecord.from_json(whole).value == 1.2
    field = "run" if name == "notes" else name
    for value in DAMAGED[name]:
        with pytest.raises(ValueError, match=f"^({field}|{name})=.*; must be "):
            TrialRecord.from_json(whole | {name: value})


def test_a_trial_that_diverged_may_have_had_no_finite_value():
    diverged = record("ab", "diverged", value=float("inf"))
    assert TrialRecord.from_json(diverged.to_json()) == diverged
