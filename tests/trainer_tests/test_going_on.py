"""Training that is stopped, and goes on from its checkpoint."""

import shutil

import pytest
import torch
from tests_support.training import after_calls, losses, same_tensors, train_rows, trained_part

from trainer.checkpoint import load_best, load_last
from trainer.config import METRIC
from trainer.journal import read_journal
from trainer.record import read_record
from trainer.train import StopTraining, train

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("frames", "waveform")


STOPS = {"between reports": 3, "right after a report": 4, "after the first step": 1}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stopped_at", STOPS.values(), ids=STOPS)
def test_stopping_and_going_on_changes_nothing(tiny_config, tmp_path, family, stopped_at):
    config = tiny_config(model__family=family, steps=8, report_every=2, optimizer__clip_norm=5.0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, expected = train_rows(config, folder=whole)
    stopped, first = train_rows(config, folder=parts, should_stop=after_calls(stopped_at))
    assert (stopped.outcome, stopped.step) == ("interrupted", stopped_at)
    result, second = train_rows(config, folder=parts, resume_from=parts)
    assert (result.outcome, result.step) == ("finished", 8)
    assert losses(first + second) == losses(expected)
    assert trained_part(first + second) == trained_part(expected)
    assert read_journal(parts) == first + second  # without gap or doubling
    states = [load_last(f, fingerprint=config.fingerprint(fingerprint(f))) for f in (whole, parts)]
    assert same_tensors(states[0]["model"], states[1]["model"])
    assert same_tensors(load_best(whole), load_best(parts))


def fingerprint(folder):
    return read_record(folder).data_fingerprint


def test_a_report_that_has_seen_enough_stops_the_trial_and_it_may_go_on(tiny_config, tmp_path):
    config = tiny_config(steps=8)
    _, expected = train_rows(config)
    rows = []

    def report(row):
        rows.append(row)
        if row["step"] == 4:
            raise StopTraining("rank 7 of 8")

    stopped = train(config, report=report, folder=tmp_path)
    assert (stopped.outcome, stopped.step, stopped.reason) == ("stopped", 4, "rank 7 of 8")
    assert stopped.last_value == rows[-1][METRIC]
    train(config, report=rows.append, folder=tmp_path, resume_from=tmp_path)
    assert trained_part(rows) == trained_part(expected)
    assert read_journal(tmp_path) == rows


def test_a_report_that_fails_is_not_swallowed_and_its_row_is_kept(tiny_config, tmp_path):
    def report(row):
        raise ConnectionError("nobody listens")

    with pytest.raises(ConnectionError, match="nobody listens"):
        train(tiny_config(), report=report, folder=tmp_path)
    assert [row["step"] for row in read_journal(tmp_path)] == [2]


def test_going_on_elsewhere_takes_the_whole_journal_along(tiny_config, tmp_path):
    config = tiny_config(steps=6)
    here, there = tmp_path / "here", tmp_path / "there"
    _, first = train_rows(config, folder=here, should_stop=after_calls(3))
    shutil.move(here / "last.pt", tmp_path / "carried.pt")
    result, second = train_rows(config, folder=there, resume_from=tmp_path / "carried.pt")
    assert read_journal(there) == first + second
    assert result.value == min(row[METRIC] for row in first + second)
    assert [e["from_step"] for e in read_record(there).environments] == [3]


def test_a_row_after_the_checkpoint_is_not_doubled(tiny_config, tmp_path):
    """As when the machine went down between the row and its checkpoint."""
    config = tiny_config(steps=6)
    train_rows(config, folder=tmp_path, should_stop=after_calls(3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "stft": 0.0}\n{"step": 6, "st')
    train_rows(config, folder=tmp_path, resume_from=tmp_path)
    assert [row["step"] for row in read_journal(tmp_path)] == [2, 4, 6]


def test_the_time_before_an_interruption_counts(tiny_config, tmp_path):
    config = tiny_config(steps=4)
    train_rows(config, folder=tmp_path, should_stop=after_calls(3))
    data_fingerprint = read_record(tmp_path).data_fingerprint
    state = load_last(tmp_path, fingerprint=config.fingerprint(data_fingerprint))
    assert state["seconds"] > 0
    state["seconds"] = 1000.0
    torch.save(state, tmp_path / "last.pt")
    _, (row,) = train_rows(config, folder=tmp_path, resume_from=tmp_path)
    assert 1000 < row["seconds"] < 1100


def test_a_finished_trial_that_goes_on_has_nothing_to_do(tiny_config, tmp_path):
    first, rows = train_rows(tiny_config(), folder=tmp_path)
    again, none = train_rows(tiny_config(), folder=tmp_path, resume_from=tmp_path)
    assert none == []
    assert again == first
    assert read_journal(tmp_path) == rows


def test_being_asked_to_stop_at_the_last_step_is_too_late(tiny_config):
    result, _ = train_rows(tiny_config(steps=4), should_stop=after_calls(4))
    assert result.outcome == "finished"


def test_the_checkpoint_of_another_configuration_is_refused(tiny_config, tmp_path):
    train_rows(tiny_config(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"^checkpoint=.* of trial \w{16}; must be of trial"):
        train_rows(tiny_config(optimizer__lr=1e-4), resume_from=tmp_path)
