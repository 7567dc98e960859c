"""Tensors out of an old checkpoint, of which nothing is run.

torch's own `weights_only` refuses what Python 2 wrote (the opcode INT, for long numbers), so the
whole pickle machine is used, but knows four names: there is nothing that a file could call.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

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
    return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_Pickle)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not a tensor's") from None


class _Pickle:
    """What torch.load uses of the module pickle."""

    Unpickler = _Unpickler

    @staticmethod
    def load(opened: IO[bytes], **how: Any) -> object:
        return _Unpickler(opened, **how).load()
