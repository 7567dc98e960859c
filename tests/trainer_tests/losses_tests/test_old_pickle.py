import pickle

import pytest
import torch

from trainer.losses.old_pickle import load_tensors


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (self._path, "w")


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_tensors_are_read(tmp_path, is_zip):
    file, state = tmp_path / "weights.pth", {"state": {"weight": torch.arange(3.0)}, "epochs": [1]}
    torch.save(state, file, _use_new_zipfile_serialization=is_zip)
    found = load_tensors(file)
    assert found["state"]["weight"].tolist() == [0.0, 1.0, 2.0]
    assert found["epochs"] == [1]


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_what_a_file_would_call_is_not_called(tmp_path, is_zip):
    file, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"state": Calls(str(trace))}, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(pickle.UnpicklingError, match="open is not a tensor's"):
        load_tensors(file)
    assert not trace.exists()
