import os
import pickle

import pytest
import torch
from safetensors import safe_open

from trainer.checkpoint import (
    BEST,
    LAST,
    load_best,
    load_last,
    read_checkpoint_journal,
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
    assert read_checkpoint_journal(tmp_path, fingerprint=TRIAL) == ROWS


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
        assert file.metadata() == {"step": "7"}


def test_better_weights_take_the_place_of_the_best_whole(tmp_path):
    for value in (1.0, 2.0):
        save_best(tmp_path, {"weight": torch.full((3,), value)}, step=1)
    assert load_best(tmp_path)["weight"].tolist() == [2.0] * 3
    assert [path.name for path in tmp_path.iterdir()] == [BEST]
