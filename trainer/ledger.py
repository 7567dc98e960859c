"""Which tensors are alive and what they were made for: bytes by part, now and at most."""

import dataclasses
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

MAPPED_BYTES = 32 * 2**20
"""Blocks from here on glibc maps by themselves and gives back when they are freed (mallopt(3))."""

_CUDA_BLOCK_BYTES = 512


@dataclass(kw_only=True)
class Alive:
    """What is in use at a moment."""

    parts: Counter[str] = field(default_factory=Counter)
    """Bytes by part."""
    total_bytes: int = 0
    unmapped_bytes: int = 0
    """In blocks smaller than MAPPED_BYTES."""

    def add(self, part: str, size: int) -> None:
        """Take in a block of some bytes, or take it out when `size` is below zero."""
        self.parts[part] += size
        self.total_bytes += size
        self.unmapped_bytes += size if abs(size) < MAPPED_BYTES else 0

    def copy(self) -> "Alive":
        """Return what does not change any more."""
        return dataclasses.replace(self, parts=self.parts.copy())


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps account of tensors, with values or without; those made within it are found by it.

    Not seen is what an operation allocates and frees inside itself.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = ""
        """What is being made now belongs to it."""
        self.now = Alive()
        self.peak = Alive()
        """Since `begin`."""
        self._part_of: dict[int, str] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self._note(made)
        return made

    def begin(self, part: str) -> None:
        """Forget the peak; what follows belongs to a part."""
        self.part, self.peak = part, self.now.copy()

    def put(self, tensors: object, part: str) -> None:
        """Put tensors down to a part, whatever they belonged to before."""
        self._note(tensors)
        for storage in _storages(tensors):
            self.now.add(self._part_of[storage._cdata], -_size(storage))
            self.now.add(part, _size(storage))
            self._part_of[storage._cdata] = part

    def _note(self, tensors: object) -> None:
        for storage in _storages(tensors):
            if storage._cdata not in self._part_of:
                self._part_of[storage._cdata] = self.part
                self.now.add(self.part, _size(storage))
                weakref.finalize(storage, self._forget, storage._cdata, _size(storage))
        if self.now.total_bytes > self.peak.total_bytes:
            self.peak = self.now.copy()

    def _forget(self, key: int, size: int) -> None:
        self.now.add(self._part_of.pop(key), -size)


def _storages(tensors: object) -> Iterator[torch.UntypedStorage]:
    for tensor in tree_iter(tensors):
        if isinstance(tensor, Tensor):
            yield tensor.untyped_storage()


def _size(storage: torch.UntypedStorage) -> int:
    """Return the bytes of the block that an allocator gives out."""
    size = storage.nbytes()
    if storage.device.type != "cuda":
        return size
    return -(-size // _CUDA_BLOCK_BYTES) * _CUDA_BLOCK_BYTES
