"""What is not finite: real divergence, by a rate that no float32 can bear, and what is none."""

import json
import math
import re

import numpy as np
import pytest
import soundfile
import torch
from tests_support.training import train_rows, trained_part

from trainer.config import METRIC, SAMPLE_RATE_HZ
from trainer.journal import read_journal
from trainer.training_run import Diverged, TrainingRun

pytestmark = pytest.mark.usefixtures("one_thread")


DIVERGING = {
    # The head moves first: step 1 still validates, step 2 has an infinite gradient.
    "gradient": ({"optimizer__lr": 1e30}, 2, [1], r"^loss=.*, gradient norm=inf at step 2$"),
    "validation": ({"optimizer__lr": 1e10}, 2, [1], r"^validation stft=nan at step 2$"),
    "first": (
        {"optimizer__lr": 1e30, "model__family": "waveform"},
        1,
        [],
        r"^validation stft=(inf|nan) at step 1$",
    ),
    "loss": (
        {"optimizer__lr": 1e30, "model__family": "waveform", "report_every": 9},
        2,
        [],
        r"^loss=(inf|nan), gradient norm=.* at step 2$",
    ),
}


@pytest.mark.parametrize("kind", DIVERGING)
def test_what_is_not_finite_ends_the_trial_as_diverged(tiny_config, tmp_path, kind):
    changes, step, reported, reason = DIVERGING[kind]
    config = tiny_config(**{"steps": 9, "report_every": 1} | changes)
    result, rows = train_rows(config, folder=tmp_path)
    assert (result.outcome, result.step) == ("diverged", step)
    assert re.search(reason, result.reason)
    assert [row["step"] for row in rows] == reported
    assert read_journal(tmp_path) == rows
    text = (tmp_path / "metrics.jsonl").read_text()
    json.loads(f"[{text.replace(chr(10), ',')}0]", parse_constant=lambda name: pytest.fail(name))
    assert result.value == (rows[0][METRIC] if rows else None)


def test_a_trial_that_diverges_with_its_last_step_is_not_finished(tiny_config):
    result, rows = train_rows(tiny_config(steps=2, report_every=1, optimizer__lr=1e10))
    assert result.outcome == "diverged"
    assert [row["step"] for row in rows] == [1]


class BrokenTerm:
    """A term that only informs, and is no number on a batch's second clip."""

    names = ("broken",)

    def __init__(self, value):
        self._value = value

    def __call__(self, estimate, target):
        values = torch.ones(len(estimate))
        values[1:] = self._value
        return {"broken": values}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_term_that_only_informs_may_be_no_number(tiny_config, tmp_path, caplog, value):
    config = tiny_config()
    train_rows(config, folder=tmp_path / "without")
    run = TrainingRun.begin(config, folder=tmp_path / "with", commit="abc", resume_from=None)
    run._learner.mix.groups.append(BrokenTerm(value))
    with run.batches() as batches:
        for clips, shifts in batches:
            run.update(clips, shifts)
            if run.is_report_due:
                run.keep(run.validate())
    rows = read_journal(tmp_path / "with")  # takes finite numbers only
    assert trained_part(rows) == trained_part(read_journal(tmp_path / "without"))
    assert [row["step"] for row in rows] == [2, 4]
    left_out = [text for text in caplog.messages if text.startswith("train_broken=")]
    assert left_out == [f"train_broken={value} at step 2: left out"]  # once
    again = TrainingRun.begin(
        config, folder=tmp_path / "with", commit="abc", resume_from=tmp_path / "with"
    )
    assert again.step == 4


def test_a_term_that_is_trained_on_must_be_a_number(tiny_config, tmp_path):
    """Not even while its gradient is finite."""
    config = tiny_config(steps=4, report_every=1)
    run = TrainingRun.begin(config, folder=tmp_path, commit="abc", resume_from=None)
    (group,) = run._learner.mix.groups
    run._learner.mix.groups[0] = AtInfinity(group)
    with run.batches() as batches:
        clips, shifts = next(batches)
        with pytest.raises(Diverged, match=r"^loss=inf, gradient norm=\d\S* at step 1$"):
            run.update(clips, shifts)


class AtInfinity:
    """A group of terms whose values lie infinitely high."""

    def __init__(self, group):
        self.names = group.names
        self._group = group

    def __call__(self, estimate, target):
        return {name: value + math.inf for name, value in self._group(estimate, target).items()}


def test_silent_batches_do_not_diverge(tmp_path, tiny_config, shared_cache):
    """Recordings that are silent but for a click: most clips drawn are silence."""
    for number in range(6):
        samples = np.zeros(6 * SAMPLE_RATE_HZ)
        samples[100 : 100 + 3000] = np.random.default_rng(number).normal(0, 0.3, 3000)
        soundfile.write(tmp_path / f"{number}.wav", samples, SAMPLE_RATE_HZ, "PCM_16")
    config = tiny_config(data__path=str(tmp_path), steps=6, optimizer__clip_norm=1.0)
    result, rows = train_rows(config)
    assert result.outcome == "finished"
    assert all(np.isfinite(row["train_loss"]) for row in rows)
