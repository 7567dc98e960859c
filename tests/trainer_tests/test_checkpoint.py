import hashlib
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainer.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    find_checkpoint,
    find_usable,
    has_checkpoint,
    load_best,
    load_last,
    save_best,
    save_last,
)

TRIAL = "0123456789abcdef"
ROWS = [{"step": 2, "stft": 1 / 3, "train_losses": [0.1, 0.2]}]


def state(**changes):
    weights = {"weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}
    whole = {
        "step": 3,
        "fingerprint": TRIAL,
        "model": weights,
        "optimizer": {"lr": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        "loss": {},
        "rng": {"cpu": torch.get_rng_state()},
        "journal": ROWS,
        "interval": {"losses": [0.5], "grad_norms": [1.5]},
        "seconds": 1.25,
    }
    return whole | changes


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path):
    save_last(tmp_path, state())
    for path in (tmp_path, tmp_path / LAST):  # its folder will do as well
        loaded = load_last(path, fingerprint=TRIAL)
        assert torch.equal(loaded["model"]["weight"], state()["model"]["weight"])
        assert torch.equal(loaded["rng"]["cpu"], state()["rng"]["cpu"])
        plain = ("step", "journal", "interval", "seconds")
        assert [loaded[name] for name in plain] == [state()[name] for name in plain]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    save_last(tmp_path, state(step=3))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_last(tmp_path, state(step=4, interval={"losses": lambda: None}))
    assert load_last(tmp_path, fingerprint=TRIAL)["step"] == 3


def test_the_checkpoint_of_another_trial_is_refused_with_both_names(tmp_path):
    save_last(tmp_path, state())
    expected = rf"^checkpoint=.*{LAST} of trial {TRIAL}; must be of trial {'f' * 16}: the conf"
    with pytest.raises(ValueError, match=expected):
        load_last(tmp_path, fingerprint="f" * 16)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


DAMAGES = {
    "empty": lambda path: cut(path, 0.0),
    "cut early": lambda path: cut(path, 0.1),
    "cut late": lambda path: cut(path, 0.95),
    "text": lambda path: path.write_text("no checkpoint"),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "missing": lambda path: path.unlink(),
    "of another program": lambda path: torch.save({"step": 3, "model": {}}, path),
    "a list": lambda path: torch.save([1, 2], path),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_no_whole_checkpoint_is_refused_by_name(tmp_path, damage):
    save_last(tmp_path, state())
    damage(tmp_path / LAST)
    with pytest.raises(ValueError, match=rf"^checkpoint=.*{LAST}; must be a .*unshift$"):
        load_last(tmp_path / LAST, fingerprint=TRIAL)


@pytest.mark.parametrize("offset", range(0, 4000, 97))
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, offset):
    """Torch itself reads weights without looking at their sums."""
    save_last(tmp_path, state())
    path = tmp_path / LAST
    content = bytearray(path.read_bytes())
    content[offset % len(content)] ^= 4
    path.write_bytes(content)
    try:
        loaded = load_last(path, fingerprint=TRIAL)
    except ValueError as error:
        assert str(error).startswith(f"checkpoint={path}; must be a ")
        return
    assert torch.equal(loaded["model"]["weight"], state()["model"]["weight"])
    assert torch.equal(loaded["rng"]["cpu"], state()["rng"]["cpu"])
    assert loaded["journal"] == ROWS


OF_NO_CHECKPOINT = {
    "step": "3",
    "model": [],
    "journal": [{"step": 2, "stft": float("nan")}],
    "seconds": None,
}


@pytest.mark.parametrize("name", OF_NO_CHECKPOINT)
def test_parts_of_another_kind_are_refused(tmp_path, name):
    save_last(tmp_path, state(**{name: OF_NO_CHECKPOINT[name]}))
    with pytest.raises(ValueError, match=rf"{LAST}; must be a checkpoint written by unshift$"):
        load_last(tmp_path, fingerprint=TRIAL)


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    """Whatever is in it: a megabyte may become a gigabyte."""
    save_last(tmp_path, state())
    with zipfile.ZipFile(tmp_path / LAST) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / LAST, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="must be a whole checkpoint of unshift$"):
        load_last(tmp_path, fingerprint=TRIAL)


# The one before.


def save_two(folder):
    save_last(folder, state(step=3))
    save_last(folder, state(step=6))


def test_the_checkpoint_before_is_kept(tmp_path):
    save_two(tmp_path)
    save_last(tmp_path, state(step=9))
    steps = {
        name: load_last(tmp_path / name, fingerprint=TRIAL)["step"] for name in (LAST, PREVIOUS)
    }
    assert steps == {LAST: 9, PREVIOUS: 6}
    assert {file.name for file in tmp_path.iterdir()} == {LAST, PREVIOUS}


@pytest.mark.parametrize("damage", [d for n, d in DAMAGES.items() if n != "missing"])
def test_where_the_last_is_damaged_the_one_before_is_used_with_a_warning(tmp_path, caplog, damage):
    save_two(tmp_path)
    damage(tmp_path / LAST)
    file, found = find_checkpoint(tmp_path, fingerprint=TRIAL)
    assert (file, found["step"]) == (tmp_path / PREVIOUS, 3)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"checkpoint={tmp_path / LAST}; must be a ")
    assert record.getMessage().endswith(f"; going on from {tmp_path / PREVIOUS}, step 3")


def test_where_a_kill_came_between_two_renamings_the_one_before_is_used_quietly(tmp_path, caplog):
    save_two(tmp_path)
    (tmp_path / LAST).unlink()
    assert has_checkpoint(tmp_path)
    assert load_last(tmp_path, fingerprint=TRIAL)["step"] == 3
    assert caplog.records == []


def test_another_trials_checkpoint_in_the_place_of_the_last_is_not_used(tmp_path, caplog):
    save_two(tmp_path)
    save_last(tmp_path, state(fingerprint="f" * 16))
    assert load_last(tmp_path, fingerprint=TRIAL)["step"] == 6
    assert f"{LAST} of trial {'f' * 16}; must be of trial {TRIAL}" in caplog.text


def test_where_neither_is_whole_both_are_named(tmp_path, caplog):
    save_two(tmp_path)
    for name in (LAST, PREVIOUS):
        cut(tmp_path / name, 0.5)
    with pytest.raises(
        ValueError, match=rf"^checkpoint=.*{LAST}; .*; and checkpoint=.*{PREVIOUS};"
    ):
        find_checkpoint(tmp_path, fingerprint=TRIAL)
    assert find_usable(tmp_path, fingerprint=TRIAL) is None
    assert caplog.messages[0].endswith("; starting over from step 0")


def test_a_usable_checkpoint_is_found_with_its_rows(tmp_path):
    assert find_usable(tmp_path, fingerprint=TRIAL) is None
    assert not has_checkpoint(tmp_path)
    save_last(tmp_path, state())
    assert find_usable(tmp_path, fingerprint=TRIAL) == (tmp_path / LAST, ROWS)


KILLED_WHILE_SAVING = """
import itertools, os, random, signal, sys, time
from pathlib import Path
from trainer.checkpoint import load_last, save_last
folder, fingerprint = Path(sys.argv[1]), sys.argv[2]
state = load_last(folder, fingerprint=fingerprint)
random.seed(0)
saved, saving = os.pipe()
for _ in range(20):
    child = os.fork()
    if child == 0:
        for state["step"] in itertools.count(state["step"] + 1):
            save_last(folder, state)
            os.write(saving, b"1")
    os.read(saved, 1 << 16)  # one more at least, however slow the machine is
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load_last(folder, fingerprint=fingerprint)
    assert found["step"] >= state["step"]
    state = found
assert state["step"] > 20
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
def test_killed_at_any_moment_a_whole_checkpoint_is_there(tmp_path):
    save_last(tmp_path, state(step=1))
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), TRIAL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # a damaged one would be warned of


class Dangerous:
    """What runs code when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def test_loading_runs_no_code(tmp_path):
    torch.save(state(interval=Dangerous(tmp_path / "harm")), tmp_path / LAST)
    with pytest.raises(ValueError, match=r"must be a whole checkpoint of unshift$"):
        load_last(tmp_path, fingerprint=TRIAL)
    assert not (tmp_path / "harm").exists()


def test_the_best_weights_are_read_to_the_last_bit(tmp_path):
    weights = {
        "transposed": torch.randn(3, 4).T,  # not contiguous
        "trained": torch.nn.Parameter(torch.randn(5)),
        "half": torch.randn(2).bfloat16(),
    }
    save_best(tmp_path, weights, step=7)
    loaded = load_best(tmp_path)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    with safe_open(tmp_path / BEST, "pt") as file:
        assert file.metadata()["step"] == "7"


def test_better_weights_take_the_place_of_the_best_whole(tmp_path):
    for value in (1.0, 2.0):
        save_best(tmp_path, {"weight": torch.full((3,), value)}, step=1)
    assert load_best(tmp_path)["weight"].tolist() == [2.0] * 3
    assert [path.name for path in tmp_path.iterdir()] == [BEST]


def best_weights():
    return {"weight": torch.linspace(-1, 1, 12).reshape(3, 4), "scale": torch.tensor(0.5)}


def test_the_sum_of_the_best_weights_is_over_names_types_shapes_and_bytes(tmp_path):
    save_best(tmp_path, best_weights(), step=1)
    digest = hashlib.sha256()
    digest.update(b'["scale", "torch.float32", []]' + struct.pack("<f", 0.5))
    values = best_weights()["weight"].flatten().tolist()
    digest.update(b'["weight", "torch.float32", [3, 4]]' + struct.pack("<12f", *values))
    with safe_open(tmp_path / BEST, "pt") as file:
        assert file.metadata()["sha256"] == digest.hexdigest()


@pytest.mark.parametrize("bit", [0, 7, 200, 8 * 52 - 1])  # of thirteen numbers of four bytes
def test_best_weights_with_a_flipped_bit_are_refused_in_one_line(tmp_path, bit):
    save_best(tmp_path, best_weights(), step=1)
    content = bytearray((tmp_path / BEST).read_bytes())
    content[len(content) - 1 - bit // 8] ^= 1 << bit % 8
    (tmp_path / BEST).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^weights=.*{BEST}; must be as .* file is damaged$"):
        load_best(tmp_path)


def test_best_weights_of_before_sums_were_kept_are_read(tmp_path):
    save_file(best_weights(), tmp_path / BEST, metadata={"step": "1"})
    assert torch.equal(load_best(tmp_path)["weight"], best_weights()["weight"])
    save_file(best_weights(), tmp_path / BEST)
    assert torch.equal(load_best(tmp_path)["scale"], best_weights()["scale"])
