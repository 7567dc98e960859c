"""What is checked and recorded before step 0, and recordings that change afterwards."""

import os
import shutil

import numpy as np
import pytest
import soundfile
from tests_support.training import train_rows, trained_part

from trainer.config import SAMPLE_RATE_HZ
from trainer.journal import read_journal
from trainer.record import read_record
from trainer.train import train
from trainer.training_run import TrainingRun

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_record_is_written_before_step_0(tiny_config, tmp_path, data):
    config = tiny_config()
    run = TrainingRun.begin(config, folder=tmp_path, commit="abc", resume_from=None)
    record = read_record(tmp_path)
    assert run.step == 0
    assert (record.config, record.commit) == (config, "abc")
    assert record.data_fingerprint == data.fingerprint
    (environment,) = record.environments
    assert (environment["device_kind"], environment["threads"]) == ("cpu", 1)


def test_other_data_than_the_configuration_names_is_refused_by_name(tiny_config, data):
    named = tiny_config(data__fingerprint=data.fingerprint, steps=1)
    assert train_rows(named)[0].outcome == "finished"
    other = tiny_config(data__fingerprint="0" * 16)
    expected = rf"^data\.path=.* holds data {data.fingerprint}; must be data {'0' * 16}$"
    with pytest.raises(ValueError, match=expected):
        train_rows(other)


def write_recordings(folder, seeds):
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, SAMPLE_RATE_HZ)
        soundfile.write(folder / f"{seed}.wav", samples, SAMPLE_RATE_HZ, "PCM_16")


def replace_one(music):
    shutil.copy(music / "0.wav", music / "other.wav")
    soundfile.write(music / "0.wav", np.full(SAMPLE_RATE_HZ, 0.1), SAMPLE_RATE_HZ, "PCM_16")


REPLACED = {
    "replaced": replace_one,
    "removed": lambda music: (music / "0.wav").unlink(),
    "truncated": lambda music: os.truncate(music / "0.wav", 60_000),
    "emptied": lambda music: os.truncate(music / "0.wav", 0),
    "one more": lambda music: write_recordings(music, [9]),
}


@pytest.mark.parametrize("change", REPLACED.values(), ids=REPLACED)
def test_recordings_changed_in_mid_run_change_no_number_and_are_not_gone_on_with(
    tiny_config, tmp_path, change
):
    music = tmp_path / "music"
    write_recordings(music, range(4))
    config = tiny_config(data__path=str(music), steps=6)
    _, expected = train_rows(config)
    seen, folder = [], tmp_path / "trial"

    def report(row):
        seen.append(row)
        if row["step"] == 2:
            change(music)

    train(config, report=report, folder=folder)
    assert trained_part(seen) == trained_part(expected)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(
        ValueError, match=r"must be of trial \w{16}: the configuration, the data or"
    ):
        train_rows(config, folder=folder, resume_from=folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_decoded_samples_written_over_in_mid_run_end_the_trial_with_one_line(tiny_config, tmp_path):
    write_recordings(tmp_path / "music", range(4))
    cache = tmp_path / "cache"
    config = tiny_config(data__path=str(tmp_path / "music"), data__cache=str(cache), steps=8)

    def report(row):
        (samples,) = cache.glob("*/samples.f32")
        samples.write_bytes(bytes(samples.stat().st_size))

    with pytest.raises(ValueError, match=r"samples\.f32 must not change while it is in use$"):
        train(config, report=report, folder=tmp_path / "trial")
    # Decoded anew, it goes on: batches drawn ahead were drawn before.
    train_rows(config, folder=tmp_path / "trial", resume_from=tmp_path / "trial")
    assert trained_part(read_journal(tmp_path / "trial")) == trained_part(train_rows(config)[1])
