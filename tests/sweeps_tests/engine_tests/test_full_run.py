import pytest
from filelock import FileLock

from sweeps.engine.full_run import LOG_STEPS, plan_full_run
from sweeps.engine.root import Root
from trainer.journal import read_journal
from trainer.train import never
from trainer.trained import read_trained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def plan(tiny_config, data, tmp_path):
    """Return a function from a number of steps to the run of a two-step trial at that length."""

    def build(steps):
        root = Root(path=tmp_path)
        config = tiny_config(steps=2, report_every=1)
        return plan_full_run(config, data_fingerprint=data.fingerprint, steps=steps, root=root)

    return build


def run(full_run, *, should_stop=never):
    rows = []
    result = full_run.train(commit="test", on_row=rows.append, should_stop=should_stop)
    return result, [row["step"] for row in rows]


def test_the_log_trained_ten_thousand_steps(plan):
    full = plan(LOG_STEPS).config
    assert (full.steps, full.report_every) == (10_000, 250)


def test_only_length_and_reports_differ_from_the_trial(plan, tiny_config):
    longer = plan(16).config.to_fields()
    trial = tiny_config(steps=2, report_every=1).to_fields()
    changed = {name for name, value in longer.items() if trial[name] != value}
    assert changed == {"steps", "report_every"}


def test_it_is_a_trial_of_its_own_that_can_be_used(plan):
    full = plan(8)
    result, steps = run(full)
    assert (result.outcome, result.step, steps) == ("finished", 8, list(range(1, 9)))
    assert read_trained(full.folder).record.fingerprint == full.fingerprint


def test_what_was_interrupted_goes_on_and_what_is_finished_is_not_trained_again(plan):
    full, polls = plan(8), iter(range(100))
    result, steps = run(full, should_stop=lambda: next(polls) == 2)
    assert (result.outcome, result.step, full.step) == ("interrupted", 3, 3)
    result, steps = run(full)
    assert (result.outcome, steps) == ("finished", [4, 5, 6, 7, 8])
    assert [row["step"] for row in read_journal(full.folder)] == list(range(1, 9))
    again, steps = run(full)
    assert (again.outcome, again.value, steps) == ("finished", result.value, [])


def test_a_second_process_is_refused(plan):
    full = plan(8)
    (full.root.path / "locks").mkdir()
    held = FileLock(full.root.path / "locks" / f"{full.fingerprint}.lock")
    with held, pytest.raises(ValueError, match="is being trained; must be by one process"):
        run(full)


def test_do_nothing_is_scored_on_the_same_clips(plan, data):
    import torch

    from trainer.evaluate import ValidationSet, score_do_nothing

    full = plan(8)
    clips = ValidationSet.build(data, full.config.validation, torch.device("cpu"))
    assert full.score_do_nothing() == score_do_nothing(clips)["stft"]
