"""Tensors out of an old checkpoint, of which nothing is run.

torch's own `weights_only` refuses what Python 2 wrote (the opcode INT, for long numbers), so the
whole pickle machine is used, but knows four names: there is nothing that a file could call.
"""

import pickle
import types
from collections import OrderedDict
from pathlib import Path

import torch

_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "FloatStorage"): torch.FloatStorage,
    ("torch", "LongStorage"): torch.LongStorage,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
}


def load_tensors(file: Path) -> object:
    """Return what torch.save wrote into a file, on the CPU.

    Raises pickle.UnpicklingError where that is more than tensors in plain containers.
    """
    restricted = types.SimpleNamespace(
        Unpickler=_Unpickler, load=lambda opened, **how: _Unpickler(opened, **how).load()
    )
    return torch.load(file, map_location="cpu", weights_only=False, pickle_module=restricted)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not a tensor's") from None
