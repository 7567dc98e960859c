"""Decoded samples on disk: damaged, shared, replaced, half written."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock
from tests_support.noise_files import folder_of, names, spoil_unnoticed

from trainer.data import open_data


def damage_length(folder):
    with (folder / "samples.f32").open("r+b") as file:
        file.truncate(1000)


def damage_index(folder):
    (folder / "index.json").write_text('{"half":')


def put_other_samples(folder):
    path = folder / "samples.f32"
    path.write_bytes(np.zeros(path.stat().st_size // 4, "<f4").tobytes())


def flip_one_bit(folder):
    with (folder / "samples.f32").open("r+b") as file:
        file.seek(40_001)
        (byte,) = file.read(1)
        file.seek(40_001)
        file.write(bytes([byte ^ 1]))


def nest_the_index(folder):
    (folder / "index.json").write_text("[" * 100_000)


def lose_samples(folder):
    (folder / "samples.f32").unlink()


def lose_all(folder):
    shutil.rmtree(folder)


DAMAGES = [
    damage_length,
    put_other_samples,
    flip_one_bit,
    damage_index,
    nest_the_index,
    lose_samples,
    lose_all,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_again(music, cache, damage):
    before = open_data(str(music), cache)
    expected = np.array(before.samples)
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    damage(cache / before.fingerprint)
    after = open_data(str(music), cache)
    assert after.training == before.training
    assert np.array_equal(after.samples, expected)


MEMOS = {
    "nested deeply": lambda memo: "[" * 200_000,
    "cut": lambda memo: json.dumps(memo)[:-9],
    "empty": lambda memo: "",
    "not text": lambda memo: "\0" * 100,
    "a list": lambda memo: json.dumps([memo]),
    "hashes of numbers": lambda memo: json.dumps(
        memo | {"hashes": dict.fromkeys(memo["hashes"], 1)}
    ),
    "no hashes": lambda memo: json.dumps(memo | {"hashes": dict.fromkeys(memo["hashes"], "ab")}),
    "reasons of numbers": lambda memo: json.dumps(
        memo | {"verdicts": dict.fromkeys(memo["verdicts"], 1)}
    ),
}


@pytest.mark.parametrize("damage", MEMOS.values(), ids=MEMOS.keys())
def test_a_damaged_memo_is_made_anew(music, cache, damage):
    before = open_data(str(music), cache)
    memo = cache / "files.json"
    content = json.loads(memo.read_text())
    memo.write_text(damage(content))
    after = open_data(str(music), cache)
    assert (after.training, after.skipped) == (before.training, before.skipped)
    assert json.loads(memo.read_text()) == content


def test_a_cache_that_was_copied_is_believed_by_its_samples(music, cache, tmp_path):
    first = open_data(str(music), cache)
    shutil.copytree(cache, tmp_path / "copy", copy_function=shutil.copyfile)  # other time stamps
    for file in music.iterdir():
        spoil_unnoticed(file)
    again = open_data(str(music), tmp_path / "copy")
    assert (again.fingerprint, again.training) == (first.fingerprint, first.training)
    assert np.array_equal(again.samples, first.samples)


@pytest.mark.parametrize("damage", [damage_length, put_other_samples, flip_one_bit])
def test_samples_written_over_while_in_use_are_not_handed_out(music, cache, damage):
    data = open_data(str(music), cache)
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    damage(cache / data.fingerprint)
    with pytest.raises(ValueError, match=r"^data\.cache: .*samples\.f32 must not change while it"):
        data.clip(data.training[0], 0, 100)


def test_a_cache_built_again_by_another_does_not_disturb_who_reads(music, cache):
    data = open_data(str(music), cache)
    expected = data.clip(data.training[0], 0, 1000)
    samples_path = cache / data.fingerprint / "samples.f32"
    before = samples_path.stat().st_ino
    (cache / data.fingerprint / "index.json").unlink()
    open_data(str(music), cache)
    assert samples_path.stat().st_ino != before
    assert np.array_equal(data.clip(data.training[0], 0, 1000), expected)


def test_samples_read_from_a_file_replaced_since_it_was_hashed_are_not_taken(music, cache, caplog):
    first = open_data(str(music), cache)
    shutil.rmtree(cache / first.fingerprint)
    file = music / "03.wav"  # gets another recording's samples; size and time are as they were
    status = file.stat()
    file.write_bytes((music / "04.wav").read_bytes())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = open_data(str(music), cache)
    assert after.fingerprint != first.fingerprint
    assert names(after.training + after.validation) == {
        f"{seed:02}.wav" for seed in range(12) if seed != 3
    }
    assert "03.wav (unreadable: changed while it was read)" in caplog.text


def test_an_index_of_another_data_set_is_not_believed(music, cache, tmp_path):
    data = open_data(str(music), cache)
    other = open_data(folder_of(music, tmp_path, data.training), cache)
    assert other.fingerprint != data.fingerprint
    index_path = cache / data.fingerprint / "index.json"
    shutil.copyfile(cache / other.fingerprint / "index.json", index_path)
    assert open_data(str(music), cache).training == data.training


def test_nothing_half_written_is_left_and_old_remains_go(music, cache):
    cache.mkdir()
    for name, age_s in (("samples-dead.partial", 2 * 24 * 3600), ("samples-alive.partial", 60)):
        (cache / name).touch()
        os.utime(cache / name, (time.time() - age_s,) * 2)
    fingerprint = open_data(str(music), cache).fingerprint
    left = {path.name for path in cache.iterdir()}
    assert left == {"samples-alive.partial", "files.json", "building.lock", fingerprint}
    assert {p.name for p in (cache / fingerprint).iterdir()} == {"samples.f32", "index.json"}


OPEN_AT_ONCE = """
import pathlib, sys, time, numpy, trainer.data
path, cache, ready, go = sys.argv[1:]
pathlib.Path(ready).touch()
while not pathlib.Path(go).exists():
    time.sleep(0.001)
data = trainer.data.open_data(path, cache)
print(data.fingerprint, float(numpy.abs(data.samples).sum()))
"""


def test_processes_that_open_at_once_get_the_same(music, cache, tmp_path):
    go, ready = tmp_path / "go", [tmp_path / f"ready {i}" for i in range(2)]
    command = [sys.executable, "-c", OPEN_AT_ONCE, str(music), str(cache)]
    processes = [
        subprocess.Popen([*command, str(path), str(go)], stdout=subprocess.PIPE, text=True)
        for path in ready
    ]
    while not all(path.exists() for path in ready):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    go.touch()
    answers = [process.communicate(timeout=240)[0].split() for process in processes]
    data = open_data(str(music), cache)
    assert answers == [[data.fingerprint, str(float(np.abs(data.samples).sum()))]] * 2
    assert not list(cache.rglob("*.partial"))


DECODE_AT_ONCE = """
import logging, sys, trainer.data
logging.basicConfig(level=logging.DEBUG, format="%(message)s", stream=sys.stdout)
trainer.data.open_data(*sys.argv[1:])
"""


def test_of_processes_that_begin_at_once_one_decodes_for_all(music, cache, tmp_path):
    cache.mkdir()
    outputs = [tmp_path / f"output {i}" for i in range(2)]
    with FileLock(cache / "building.lock"):  # until both have seen that nothing is decoded yet
        processes = []
        for path in outputs:
            with path.open("w") as output:
                command = [sys.executable, "-c", DECODE_AT_ONCE, str(music), str(cache)]
                processes.append(subprocess.Popen(command, stdout=output))
        while not all("not acquired" in path.read_text() for path in outputs):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
    assert [process.wait(240) for process in processes] == [0, 0]
    assert sum(path.read_text().count("decoding 12 recordings") for path in outputs) == 1
