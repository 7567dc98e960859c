from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.progress import ProgressTable


def record(**changes):
    fields = {"fingerprint": "abcdef0123456789", "outcome": "interrupted", "step": 25}
    params = {"optimizer.lr": 5e-3, "optimizer.momentum": 0.95}
    return TrialRecord(**{**fields, "params": params, "value": 1.2, "last_value": 1.35, **changes})


def shown(*events):
    lines = []
    table = ProgressTable(1.5, show=lines.append)
    for kind, each in events:
        table.row(each, {}) if kind == "row" else table.ended(each)
    return lines


def test_a_report_shows_what_varies_the_current_validation_and_the_gain():
    header, line = shown(("row", record()))
    assert header.split() == ["trial", "varied", "step", "validation", "gain"]
    assert line.split() == [
        *("1", "abcdef", "lr=5.00e-03", "momentum=0.9500"),
        *("25", "1.3500", "+10.0", "%"),
    ]


def test_an_ending_shows_the_outcome_and_the_best_where_it_was_not_the_last():
    *_, line = shown(("ended", record(outcome="finished")))
    assert line.split()[-6:] == ["1.3500", "+10.0", "%", "finished,", "best", "1.2000"]


def test_a_bad_ending_says_why():
    bad = record(outcome="diverged", value=None, last_value=None, error="loss=nan at step 3")
    assert shown(("ended", bad))[-1].endswith("diverged: loss=nan at step 3")


def test_the_header_comes_again_in_a_long_log():
    lines = shown(*[("row", record(step=step)) for step in range(60)])
    assert sum(line.startswith("trial") for line in lines) == 3


def test_trials_are_numbered_in_the_order_they_appear():
    other = record(fingerprint="ffffff0123456789")
    lines = shown(("row", record()), ("row", other), ("row", record(step=50)))
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "1"]


def test_what_a_sweep_says_of_a_trial_stands_instead_of_its_fields():
    _, line = shown(("row", record(notes={"run": "output27", "log said": "much better"})))
    assert line.split()[1:5] == ["abcdef", "output27", "much", "better"]
