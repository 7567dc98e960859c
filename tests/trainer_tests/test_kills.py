"""`python -m trainer --resume`, killed at random moments and started again by the same command."""

import os
import random
import subprocess
import sys
import time

import pytest

from trainer.checkpoint import has_checkpoint, load_best, load_last
from trainer.journal import MEASURED_ONLY, read_journal
from trainer.record import read_record
from trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = 2


def command_of(config, out):
    fields = config.to_fields()
    told = {name: fields[name] for name in fields if name.startswith(("data.c", "data.b", "valid"))}
    told |= {"steps": config.steps, "report_every": EVERY, "optimizer.lr": 1e-3, "device": "cpu"}
    told |= {"model.channels": [8], "model.blocks": [1], "model.kernel_size": 3}
    settings = [part for name, value in told.items() for part in ("--set", f"{name}={value}")]
    data = ["--data", config.data.path, "--size", "demo", "--out", str(out), "--resume"]
    return [sys.executable, "-m", "trainer", *data, *settings]


def start(command):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_checkpoints(process, file, *, count, seconds=float("inf")):
    """Wait until it has become another one so many times, or for so many seconds."""
    deadline = time.monotonic() + seconds
    for _ in range(count):
        before = written_at(file)
        while written_at(file) in (None, before) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)


def written_at(file):
    """Return when a file was written, None while there is none."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def last_checkpoint(out):
    if not has_checkpoint(out):
        return 0
    return load_last(out, fingerprint=read_record(out).fingerprint)["step"]


def kill_again_and_again(command, out, *, times):
    """Return for each kill how many steps that had been reported are trained again."""
    moments, again = random.Random(0), []
    step, last = 0, out / "last.pt"
    for kill in range(times):
        process = start(command)
        if kill % 5 == 4:  # anywhere, while it starts too
            wait_for_checkpoints(process, last, count=1, seconds=moments.uniform(0.5, 5))
        else:
            wait_for_checkpoints(process, last, count=1)
            wait_for_checkpoints(process, last, count=3, seconds=moments.uniform(0, 0.2))
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        assert last_checkpoint(out) >= step
        step = last_checkpoint(out)
        reported = max([row["step"] for row in read_journal(out)], default=0)
        again.append(reported - step)
    return again


def trained_part(rows):
    return [{k: v for k, v in row.items() if k not in MEASURED_ONLY} for row in rows]


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        pytest.param(3, 200, marks=pytest.mark.slow),
        pytest.param(20, 400, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_a_training_killed_at_random_moments_ends_as_one_left_alone(
    tiny_config, tmp_path, times, steps
):
    out = tmp_path / "killed"
    command = command_of(tiny_config(steps=steps), out)
    again = kill_again_and_again(command, out, times=times)
    assert all(0 <= recomputed <= EVERY for recomputed in again)
    process = start(command)
    said, warned = process.communicate()
    assert said.startswith(f"finished at step {steps} "), warned
    assert "must be" not in warned  # nothing was damaged
    rows, alone = read_journal(out), []
    config = read_record(out).config
    train(config, report=alone.append, folder=tmp_path / "alone")
    assert [row["step"] for row in rows] == list(range(EVERY, steps + 1, EVERY))
    assert trained_part(rows) == trained_part(alone)
    best, same = load_best(out), load_best(tmp_path / "alone")
    assert all((best[name] == same[name]).all() for name in same)
    assert {file.name for file in out.iterdir()} == {f.name for f in (tmp_path / "alone").iterdir()}
    sys.stdout.write(f"killed {times} times; reported steps trained again: {again}\n")
