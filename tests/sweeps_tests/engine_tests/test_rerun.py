import pytest

from sweeps.engine.rerun import Rule, find_difference, rows_up_to

EXACT = Rule(is_exact=True, why="")
CLOSE = Rule(is_exact=False, why="another card")


def journal(*, steps=(5, 10), **changes):
    """Two reports of five steps each; `changes` such as stft_10=2.0 alter the one at a step."""
    rows = []
    for step in steps:
        row = {"step": step, "train_losses": [1.0 / (step + i) for i in range(5)]}
        row |= {"stft": 1.0 + 1 / step, "seconds": 3.0 * step, "time_ms": step}
        for name, value in changes.items():
            field, _, at = name.rpartition("_")
            if int(at) == step:
                row[field] = value
        rows.append(row)
    return rows


def test_equal_journals_do_not_differ():
    assert find_difference(journal(), journal(), EXACT) is None


def test_speed_and_time_are_not_compared():
    assert find_difference(journal(), journal(seconds_5=99.0, time_ms_10=0), EXACT) is None


def test_an_altered_validation_is_named_with_its_step():
    found = find_difference(journal(stft_10=1.2), journal(), EXACT)
    assert (found.step, found.field, found.recorded, found.here) == (10, "stft", 1.2, 1.1)


def test_an_altered_training_loss_is_named_with_its_own_step():
    losses = journal()[1]["train_losses"]
    altered = [*losses[:2], losses[2] + 1e-7, *losses[3:]]
    found = find_difference(journal(train_losses_10=altered), journal(), EXACT)
    assert (found.step, found.field) == (8, "train_losses")


@pytest.mark.parametrize("losses", [[], [0.2], [0.2] * 9])
def test_a_training_loss_too_few_or_too_many_differs(losses):
    found = find_difference(journal(train_losses_10=losses), journal(), EXACT)
    assert found.field == "train_losses"


def test_the_first_difference_is_the_one_told():
    found = find_difference(journal(stft_5=9.0, stft_10=9.0), journal(), EXACT)
    assert found.step == 5


def test_a_missing_report_differs():
    assert find_difference(journal(), journal(steps=(5,)), EXACT).step == 6


def test_elsewhere_a_tolerance_holds_that_grows_with_the_step():
    assert CLOSE.tolerance(10) == pytest.approx(10 * CLOSE.tolerance(1))  # rounding of a product
    near = 1.1 * (1 + 0.5 * CLOSE.tolerance(10))
    far = 1.1 * (1 + 2 * CLOSE.tolerance(10))
    assert find_difference(journal(stft_10=near), journal(), CLOSE) is None
    assert find_difference(journal(stft_10=near), journal(), EXACT).step == 10
    assert find_difference(journal(stft_10=far), journal(), CLOSE).step == 10


@pytest.mark.parametrize(
    ("asked", "reports"), [(None, 2), (1, 1), (5, 1), (6, 2), (10, 2), (99, 2)]
)
def test_steps_mean_up_to_the_next_report(asked, reports):
    assert len(rows_up_to(journal(), asked)) == reports
