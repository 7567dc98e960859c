"""Recordings told apart, split, and listed. Their cache is in test_data_cache.py."""

import contextlib
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests_support.noise_files import folder_of, names, noise, spoil_unnoticed, write

from trainer.config import SAMPLE_RATE_HZ
from trainer.data import VALIDATION_SHARE, open_data


def test_every_recording_is_served_with_its_own_samples(music, cache):
    data = open_data(str(music), cache)
    recordings = data.training + data.validation
    assert names(recordings) == {f"{seed:02}.wav" for seed in range(12)}
    for recording in recordings:
        expected = noise(int(recording.name[:2])).astype(np.float32)
        assert np.array_equal(data.clip(recording, 0, recording.samples), expected)


def test_a_clip_beyond_the_end_is_zeros_not_the_next_recording(music, cache):
    data = open_data(str(music), cache)
    recording = data.training[0]
    clip = data.clip(recording, recording.samples - 10, 30)
    assert np.array_equal(clip[:10], data.clip(recording, 0, recording.samples)[-10:])
    assert np.abs(clip[:10]).min() > 0
    assert np.array_equal(clip[10:], np.zeros(20))
    assert np.array_equal(data.clip(recording, recording.samples + 5, 20), np.zeros(20))


def test_a_second_open_neither_hashes_nor_decodes(music, cache):
    first = open_data(str(music), cache)
    for file in music.iterdir():
        spoil_unnoticed(file)
    second = open_data(str(music), cache)
    assert (second.fingerprint, second.training) == (first.fingerprint, first.training)
    assert np.array_equal(second.samples, first.samples)


def test_the_fingerprint_follows_from_contents_alone(music, cache, tmp_path):
    first = open_data(str(music), cache)
    other = tmp_path / "other"
    (other / "below").mkdir(parents=True)
    for number, file in enumerate(sorted(music.iterdir(), reverse=True)):
        shutil.copyfile(file, other / "below" / f"renamed {number}.wav")
        shutil.copyfile(file, other / f"twice {number}.wav")
    second = open_data(str(other), tmp_path / "other cache")
    assert second.fingerprint == first.fingerprint
    recordings = second.training + second.validation
    assert len(recordings) == 12
    assert all(recording.name.startswith("below/renamed ") for recording in recordings)
    assert [r.content_hash for r in second.training] == [r.content_hash for r in first.training]
    assert np.array_equal(second.samples, first.samples)


def test_the_fingerprint_changes_with_one_sample(music, cache):
    before = open_data(str(music), cache).fingerprint
    samples = noise(0)
    samples[1000] = 0.25
    write(music / "00.wav", samples)
    assert open_data(str(music), cache).fingerprint != before


def test_the_fingerprint_ignores_files_that_are_skipped(music, cache):
    before = open_data(str(music), cache).fingerprint
    (music / "broken.wav").write_bytes(b"no audio")
    assert open_data(str(music), cache).fingerprint == before


def test_adding_files_moves_no_other(music, cache):
    before = open_data(str(music), cache)
    for seed in range(100, 112):
        write(music / f"{seed}.wav", noise(seed))
    after = open_data(str(music), cache)
    assert names(before.validation) <= names(after.validation)
    assert names(before.training) <= names(after.training)


def test_the_content_hash_decides_who_is_held_out(music, cache):
    data = open_data(str(music), cache)
    assert len(data.validation) == 3  # of these 12 files; 1.8 are expected
    for recordings, is_held_out in ((data.training, False), (data.validation, True)):
        for recording in recordings:
            share = int(recording.content_hash[:8], 16) / 2**32
            assert (share < VALIDATION_SHARE) == is_held_out
            hashes = [r.content_hash for r in recordings]
            assert hashes == sorted(hashes)


def test_where_none_would_be_held_out_the_lowest_hash_is(music, cache, tmp_path, caplog):
    lowest, *others = open_data(str(music), cache).training[:3]
    data = open_data(folder_of(music, tmp_path, [lowest, *others]), cache)
    assert names(data.validation) == {lowest.name}
    assert names(data.training) == names(others)
    assert caplog.messages == [f"few recordings: {lowest.name} is held out for validation"]


def test_where_all_would_be_held_out_the_highest_hash_is_trained_on(music, cache, tmp_path, caplog):
    low, middle, high = open_data(str(music), cache).validation
    data = open_data(folder_of(music, tmp_path, [low, middle, high]), cache)
    assert names(data.training) == {high.name}
    assert names(data.validation) == {low.name, middle.name}
    assert caplog.messages == [f"few recordings: only {high.name} is left to train on"]


def test_one_warning_names_every_skipped_file_at_each_open(music, cache, caplog):
    (music / "broken.flac").write_bytes(b"no audio")
    (music / "lost.wav").symlink_to(music / "nothing")
    write(music / "short.wav", noise(50, seconds=0.1))
    write(music / "silent.wav", np.zeros(SAMPLE_RATE_HZ))
    shutil.copyfile(music / "silent.wav", music / "silent too.wav")
    for _ in range(2):
        caplog.clear()
        data = open_data(str(music), cache)
        assert data.skipped == (
            ("broken.flac", "unreadable: Format not recognised"),
            ("lost.wav", "unreadable: No such file or directory"),
            ("short.wav", "too short: 0.10 s, under 0.5 s"),
            ("silent too.wav", "silent"),
            ("silent.wav", "silent"),
        )
        listed = "; ".join(f"{name} ({reason})" for name, reason in data.skipped)
        assert caplog.messages == [f"skipped 5 of 17 recordings: {listed}"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_many_skipped_files_are_listed_in_a_file(music, cache, caplog):
    for number in range(23):
        (music / f"broken {number:02}.wav").write_bytes(b"%d" % number)
    data = open_data(str(music), cache)
    list_path = cache / data.fingerprint / "skipped.txt"
    (message,) = caplog.messages
    assert message.endswith(f"recognised); ... and 3 more, all listed in {list_path}")
    assert ("broken 19.wav" in message, "broken 20.wav" in message) == (True, False)
    lines = list_path.read_text().splitlines()
    assert lines[22] == "broken 22.wav: unreadable: Format not recognised"
    assert len(lines) == 23


def test_fewer_than_two_usable_recordings_are_refused_in_one_line(tmp_path, cache, caplog):
    write(tmp_path / "good.wav", noise(0))
    shutil.copyfile(tmp_path / "good.wav", tmp_path / "copy.wav")
    write(tmp_path / "short.wav", noise(1, seconds=0.2))
    expected = (
        f"data.path={tmp_path}; must be a folder with 2 or more usable recordings of different "
        "content: 3 found, 1 usable, 1 skipped: short.wav (too short: 0.20 s, under 0.5 s)"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            open_data(str(tmp_path), cache)
    assert caplog.messages == []


def test_a_folder_without_recordings_is_refused_with_the_endings(tmp_path):
    (tmp_path / "music.m4a").touch()
    with pytest.raises(ValueError, match=r"no file in it ends with \.wav, \.flac, .*\.aif$"):
        open_data(str(tmp_path), tmp_path / "cache")


@pytest.mark.parametrize("name", ["", "missing", "single.wav"])
def test_what_is_no_folder_is_refused(tmp_path, cache, name):
    write(tmp_path / "single.wav", noise(0))
    path = str(tmp_path / name) if name else ""
    expected = f"data.path={path}; must be an existing folder of recordings, or demo"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        open_data(path, cache)


def test_a_cache_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data\.cache=.*file; must be a folder that can be made"):
        open_data("demo", tmp_path / "file")


def test_home_is_expanded_in_both_paths(music, monkeypatch):
    monkeypatch.setenv("HOME", str(music.parent))
    monkeypatch.setenv("USERPROFILE", str(music.parent))
    data = open_data("~/music", "~/elsewhere/cache")
    assert (music.parent / "elsewhere" / "cache" / data.fingerprint / "samples.f32").is_file()


@contextlib.contextmanager
def as_nobody():
    """Be a user who cannot read what others may not read, where tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_place():
    """A folder that every user can read and write in, unlike pytest's."""
    before = os.umask(0)  # so are those within
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="needs permissions as POSIX has them")
def test_files_and_folders_that_may_not_be_read_are_skipped_and_named(open_place, caplog):
    music = open_place / "music"
    (music / "locked").mkdir(parents=True)
    for seed in range(3):
        write(music / f"{seed}.wav", noise(seed))
    write(music / "locked" / "3.wav", noise(3))
    (music / "2.wav").chmod(0)
    (music / "locked").chmod(0)
    with as_nobody():
        data = open_data(str(music), open_place / "cache")
    (music / "locked").chmod(0o700)
    assert names(data.training + data.validation) == {"0.wav", "1.wav"}
    assert data.skipped == (("2.wav", "unreadable: Permission denied"),)
    assert f"skipped folder {music / 'locked'}: Permission denied" in caplog.text
