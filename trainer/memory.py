"""How much memory training takes, and which part of it how much, before it is begun.

A ledger notes which tensors are alive while training is rehearsed (rehearsal.py). The number is
the one that device.PeakMemory measures and the journal records.
"""

import contextlib
import dataclasses
import functools
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from trainer.config import ModelConfig, TrainConfig
from trainer.cost import named_parts
from trainer.data import DataSet
from trainer.evaluate import ValidationSet, evaluate
from trainer.learner import Learner
from trainer.models import build_model
from trainer.rehearsal import Rehearsal

HELD_BACK = 0.45
"""On a CPU, what the C library keeps of freed blocks that lie between others, as a share of what
comes and goes within a step. As tests/benchmarks/memory.py finds it with glibc."""

PROCESS, ALLOCATOR, RECORDINGS = "process", "held back by malloc", "recordings read"
PARAMETERS, GRADIENTS, OPTIMIZER = "parameters", "gradients", "optimizer state"
HELD_OUT, CLIPS, NET, LOSS = "held-out clips", "clips and damage", "net, between parts", "loss"
BACKWARD, VALIDATION = "backward and update", "validation"

_MAPPED_BYTES = 32 * 2**20
"""Blocks from here on glibc maps by themselves, and gives back when they are freed (mallopt(3))."""
_CUDA_BLOCK_BYTES = 512
_WARM_UP_WIDTH, _WARM_UP_SAMPLES = 16, 8192


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes at the moment when most are in use, by part, largest first."""

    parts: Mapping[str, int]

    @property
    def peak_bytes(self) -> int:
        """Return the sum."""
        return sum(self.parts.values())

    @property
    def tensor_bytes(self) -> int:
        """Return what of it is tensors: about what training takes on any device."""
        around = (PROCESS, ALLOCATOR, RECORDINGS)
        return sum(size for part, size in self.parts.items() if part not in around)


def estimate_memory(
    config: TrainConfig, data: DataSet, device: torch.device, *, process_bytes: int
) -> MemoryEstimate:
    """Estimate the peak of a whole training, `device.PeakMemory`'s number.

    On a GPU that is what its allocator has given out. Elsewhere it is the resident size of a
    process, `process_bytes` before training (see `measure_process`).
    """
    peak, lasting = _rehearse(config, device)
    parts = peak.parts.copy()
    if device.type != "cuda":
        passing = max(0, peak.unmapped_bytes - lasting.unmapped_bytes)
        parts[ALLOCATOR] = round(HELD_BACK * passing)
        parts[RECORDINGS] = _recordings_read(config, data)
        parts[PROCESS] = process_bytes
    return MemoryEstimate(parts={name: size for name, size in parts.most_common() if size})


def measure_process(config: TrainConfig) -> int:
    """Return this process's resident size in bytes once all that training loads is loaded.

    Trains and validates the smallest net of the family for a step, on noise.
    """
    model = _smallest_like(config.model)
    net = build_model(model)
    clips = 0.1 * torch.randn(2, _WARM_UP_SAMPLES // model.length_multiple * model.length_multiple)
    shifts = torch.tensor([-1, 1])
    learner = Learner(net, dataclasses.replace(config, compile=False))
    learner.descend(learner.loss(clips, shifts))
    evaluate(learner.restore, ValidationSet(damaged=clips, target=clips, shifts=shifts))
    return psutil.Process().memory_info().rss


def _smallest_like(model: ModelConfig) -> ModelConfig:
    """Return a net with one block of the kind that a net has."""
    factors = model.factors[:1]
    channels = tuple(min(c, _WARM_UP_WIDTH) for c in model.channels[: 1 + len(factors)])
    return dataclasses.replace(model, channels=channels, blocks=(1,), factors=factors)


@dataclass(kw_only=True)
class _Alive:
    """What is in use at a moment."""

    parts: Counter[str] = field(default_factory=Counter)
    """Bytes by part."""
    total_bytes: int = 0
    unmapped_bytes: int = 0
    """In blocks that are not mapped by themselves."""

    def add(self, part: str, size: int) -> None:
        """Take a block of some bytes in, or out when `size` is below zero."""
        self.parts[part] += size
        self.total_bytes += size
        self.unmapped_bytes += size if abs(size) < _MAPPED_BYTES else 0

    def copy(self) -> "_Alive":
        return dataclasses.replace(self, parts=self.parts.copy())


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What is alive. While it is entered, what is made is put down to `part`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = PARAMETERS
        self.now = _Alive()
        self.peak = _Alive()
        """Since `begin`."""
        self._part_of: dict[int, str] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self.note(made)
        return made

    def begin(self, part: str) -> None:
        """Forget the peak, and put what follows down to a part."""
        self.part, self.peak = part, self.now.copy()

    def note(self, tensors: object) -> None:
        """Put down the tensors among some values that are not known yet."""
        for storage in _storages(tensors):
            if storage._cdata not in self._part_of:
                self._part_of[storage._cdata] = self.part
                self.now.add(self.part, _size(storage))
                weakref.finalize(storage, self._forget, storage._cdata, _size(storage))
        if self.now.total_bytes > self.peak.total_bytes:
            self.peak = self.now.copy()

    def move(self, tensors: object, part: str) -> None:
        """Put known tensors down to another part."""
        for storage in _storages(tensors):
            self.now.add(self._part_of[storage._cdata], -_size(storage))
            self.now.add(part, _size(storage))
            self._part_of[storage._cdata] = part

    def _forget(self, key: int, size: int) -> None:
        self.now.add(self._part_of.pop(key), -size)


def _rehearse(config: TrainConfig, device: torch.device) -> tuple[_Alive, _Alive]:
    """Return the tensors at the peak of a step or validation, and those between two."""
    rehearsal = Rehearsal(config, device)
    net, optimizer = rehearsal.learner.net, rehearsal.learner.optimizer
    ledger = _Ledger()
    ledger.note(list(net.parameters()))
    ledger.part = NET
    ledger.note(list(net.buffers()))
    ledger.part = CLIPS
    ledger.note(rehearsal.clips)
    with ledger:
        ledger.part = HELD_OUT
        validation = rehearsal.build_validation()
        with _put_down_to_parts(net, ledger):
            for _ in ("makes the optimizer's state", "has it from its start"):
                ledger.begin(CLIPS)
                loss = rehearsal.loss()
                ledger.part = BACKWARD
                rehearsal.descend(loss)
                del loss
                ledger.move(optimizer.state_dict(), OPTIMIZER)
        training = ledger.peak
        ledger.begin(VALIDATION)
        rehearsal.validate(validation)
    peak = max(training, ledger.peak, key=lambda alive: alive.total_bytes)
    return peak, ledger.now.copy()


@contextlib.contextmanager
def _put_down_to_parts(net: nn.Module, ledger: _Ledger) -> Iterator[None]:
    """Put down to each part of a net what it makes, then to the loss, and gradients to theirs."""

    def enter(part: str, *_: object) -> None:
        ledger.part = part

    def keep_gradient(parameter: Tensor) -> None:
        ledger.move(parameter.grad, GRADIENTS)

    with contextlib.ExitStack() as hooks:
        for name, part in [("", net), *named_parts(net)]:
            before, after = (name, NET) if name else (NET, LOSS)
            hooks.callback(part.register_forward_pre_hook(functools.partial(enter, before)).remove)
            hooks.callback(part.register_forward_hook(functools.partial(enter, after)).remove)
        for parameter in net.parameters():
            hook = parameter.register_post_accumulate_grad_hook(keep_gradient)  # type: ignore[no-untyped-call]
            hooks.callback(hook.remove)
        yield


def _storages(tensors: object) -> Iterator[torch.UntypedStorage]:
    for tensor in tree_iter(tensors):
        if isinstance(tensor, Tensor):
            yield tensor.untyped_storage()


def _size(storage: torch.UntypedStorage) -> int:
    size = storage.nbytes()
    if storage.device.type != "cuda":
        return size
    return -(-size // _CUDA_BLOCK_BYTES) * _CUDA_BLOCK_BYTES


def _recordings_read(config: TrainConfig, data: DataSet) -> int:
    """Return how much of the memory-mapped recordings training is expected to have read.

    The system takes these pages back when it needs them, but they count as resident.
    """
    training = sum(recording.samples for recording in data.training)
    held_out = sum(recording.samples for recording in data.validation)
    clips = config.steps * config.data.batch_size
    unread = max(0.0, 1 - config.data.clip_samples / training) ** clips
    return round(data.samples.itemsize * (training * (1 - unread) + held_out))
