import contextlib
import dataclasses
import os

import pytest
import torch

from trainer.checkpoint import LAST, PREVIOUS, load_best, load_last, save_last
from trainer.config import METRIC
from trainer.journal import MEASURED_ONLY, read_journal
from trainer.record import read_record
from trainer.train import train
from trainer.training_run import TrainingRun

pytestmark = pytest.mark.usefixtures("one_thread")


def trained_part(rows):
    return [{k: v for k, v in row.items() if k not in MEASURED_ONLY} for row in rows]


def checkpoint_step(path, *, of=None):
    return load_last(path, fingerprint=read_record(of or path).fingerprint)["step"]


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "trainer.trial_folder"]


@pytest.fixture
def config(tiny_config):
    """Eight steps at a rate at which the best validation is that of step 4."""
    return tiny_config(steps=8, report_every=2, optimizer__lr=0.2)


@pytest.fixture
def undisturbed(config, tmp_path):
    train(config, report=lambda row: None, folder=tmp_path / "undisturbed")
    return tmp_path / "undisturbed"


def assert_same_results(folder, expected):
    rows, same_rows = read_journal(folder), read_journal(expected)
    assert trained_part(rows) == trained_part(same_rows)
    assert min(rows, key=lambda row: row[METRIC])["step"] == 4
    best, same = load_best(folder), load_best(expected)
    assert all(torch.equal(best[name], same[name]) for name in same)


FULL = "must take the trial's journal, weights and checkpoint: No space left on device"


@pytest.mark.parametrize(("freed_at", "checkpoints"), [(4, [2, 2, 6, 8]), (6, [2, 2, 2, 8])])
def test_a_full_disk_costs_one_warning_and_no_number(
    config, small_disk, undisturbed, caplog, freed_at, checkpoints
):
    folder = small_disk.folder / "trial"
    steps = []

    def report(row):
        steps.append(checkpoint_step(folder))
        if row["step"] == 2:
            small_disk.fill()
        if row["step"] == freed_at:
            small_disk.free()

    assert train(config, report=report, folder=folder).outcome == "finished"
    assert steps == checkpoints
    (warning,) = warnings_of(caplog)
    assert warning == f"folder={folder}; {FULL}; training goes on and writes them when it can"
    assert_same_results(folder, undisturbed)
    kept = {"config.json", "metrics.jsonl", "best.safetensors", LAST, PREVIOUS}
    assert {file.name for file in folder.iterdir()} == kept


def test_a_trial_does_not_finish_without_its_results_and_goes_on_once_there_is_space(
    config, small_disk, undisturbed, caplog
):
    folder = small_disk.folder / "trial"
    disk = {2: small_disk.fill}  # the best weights are those of step 4
    with pytest.raises(ValueError) as full:
        train(config, report=lambda row: disk.get(row["step"], int)(), folder=folder)
    problem = "must take the trial's journal and best weights: No space left on device"
    assert str(full.value) == f"folder={folder}; {problem}"
    assert len(warnings_of(caplog)) == 1
    assert checkpoint_step(folder) == 2
    assert not list(folder.glob("*.tmp"))
    small_disk.free()
    train(config, report=lambda row: None, folder=folder, resume_from=folder)
    assert_same_results(folder, undisturbed)


def test_a_checkpoint_alone_is_not_missed_at_the_end_and_each_full_disk_is_warned_of(
    config, small_disk, undisturbed, caplog
):
    folder = small_disk.folder / "trial"
    disk = {2: small_disk.fill, 4: small_disk.free, 6: small_disk.fill}
    train(config, report=lambda row: disk.get(row["step"], int)(), folder=folder)
    assert len(warnings_of(caplog)) == 2
    assert checkpoint_step(folder) == 6  # the row of step 8 fits into what the journal has
    assert_same_results(folder, undisturbed)


def test_a_disk_that_is_full_from_the_start_is_told_in_one_line(config, small_disk):
    folder = small_disk.folder / "trial"
    small_disk.fill()
    with pytest.raises(ValueError) as full:
        train(config, report=lambda row: None, folder=folder)
    problem = "must take the trial's record and journal: No space left on device"
    assert str(full.value) == f"folder={folder}; {problem}"
    assert not folder.exists() or not list(folder.iterdir())


@contextlib.contextmanager
def file_size_limited(size):
    """Let no file grow beyond a size, as a quota does."""
    resource = pytest.importorskip("resource", reason="Windows has no limit of a file's size")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_checkpoint_cut_at_any_length_leaves_both_before_as_they_were(config, tmp_path, share):
    train(config, report=lambda row: None, folder=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    state = load_last(tmp_path, fingerprint=read_record(tmp_path).fingerprint)
    with file_size_limited(int(share * len(before[LAST]))):
        with pytest.raises(OSError, match=rf"File too large: '.*{LAST}'$"):
            save_last(tmp_path, state)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


# Going on from what is there.


def test_a_damaged_checkpoint_never_takes_the_place_of_the_whole_one(config, tmp_path):
    def spoil_at_6(row):
        if row["step"] == 6:
            (tmp_path / LAST).write_bytes(b"damaged")
            raise ConnectionError("the trial is killed")

    with pytest.raises(ConnectionError):
        train(config, report=spoil_at_6, folder=tmp_path)
    run = TrainingRun.begin(config, folder=tmp_path, commit="abc", resume_from=tmp_path)
    assert run.step == 4
    run.save()
    names = {file.name for file in tmp_path.glob("*.pt")}
    steps = {name: checkpoint_step(tmp_path / name, of=tmp_path) for name in names}
    assert steps == {LAST: 4, PREVIOUS: 4}


def test_the_step_before_a_damaged_checkpoint_is_gone_on_from(
    config, undisturbed, tmp_path, caplog
):
    train(config, report=lambda row: None, folder=tmp_path)
    with (tmp_path / LAST).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 1)
    seen = []
    train(config, report=seen.append, folder=tmp_path, resume_from=tmp_path)
    assert [row["step"] for row in seen] == [8]
    assert f"checkpoint={tmp_path / LAST}; must be a whole checkpoint" in caplog.text
    assert_same_results(tmp_path, undisturbed)


def test_starting_over_leaves_nothing_of_an_earlier_training(config, tmp_path):
    train(config, report=lambda row: None, folder=tmp_path)
    other = dataclasses.replace(config, seed=1)
    TrainingRun.begin(other, folder=tmp_path, commit="abc", resume_from=None)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "metrics.jsonl"}
    assert read_journal(tmp_path) == []


def test_a_refused_checkpoint_leaves_the_folder_as_it_was(config, tmp_path):
    train(config, report=lambda row: None, folder=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = dataclasses.replace(config, seed=1)
    with pytest.raises(ValueError, match=rf"{LAST} of trial .*; and checkpoint=.*{PREVIOUS} of"):
        train(other, report=lambda row: None, folder=tmp_path, resume_from=tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
