"""How much memory training takes, and which part of it how much, before it is begun.

A ledger (ledger.py) keeps account while training is rehearsed (rehearsal.py). What is estimated is
the number that device.PeakMemory measures and the journal records.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.config import TrainConfig
from trainer.cost import named_parts
from trainer.data import DataSet
from trainer.evaluate import ValidationSet, evaluate
from trainer.learner import Learner
from trainer.ledger import Alive, Ledger
from trainer.loss_config import LossConfig
from trainer.losses.mix import LossMix
from trainer.model_config import ModelConfig
from trainer.models import build_model
from trainer.rehearsal import Rehearsal

HELD_BACK = 0.45
"""On a CPU, what the C library keeps of freed blocks that lie between others, as a share of what
comes and goes within a step. As tests/benchmarks/memory.py finds it with glibc."""

PROCESS, ALLOCATOR, RECORDINGS = "process", "held back by malloc", "recordings read"
PARAMETERS, GRADIENTS, OPTIMIZER = "parameters", "gradients", "optimizer state"
FOREIGN = "nets of the loss"
HELD_OUT, CLIPS, NET, LOSS = "held-out clips", "clips and damage", "net, between parts", "loss"
BACKWARD, VALIDATION = "backward and update", "validation"

_WARM_UP_WIDTH, _WARM_UP_SAMPLES = 16, 8192


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What is in use at the moment when most is."""

    parts: Mapping[str, int]
    """Bytes by part, largest first."""

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
    """Estimate the peak of a whole training, device.PeakMemory's number.

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


def estimate_step_bytes(config: TrainConfig) -> int:
    """Estimate what a step's net, loss and update take, whatever the device.

    That decides whether a net fits, and takes a fraction of `estimate_memory`'s time, most of which
    is damage and validation.
    """
    ledger = Ledger()
    rehearsal = Rehearsal(config, torch.device("cpu"), observer=ledger)
    learner = rehearsal.learner
    ledger.put([*learner.net.parameters(), rehearsal.clips], PARAMETERS)
    ledger.put(learner.mix.tensors(), FOREIGN)
    ledger.begin(NET)
    rehearsal.descend(rehearsal.judge())
    ledger.put(learner.optimizer.state_dict(), OPTIMIZER)
    # Made at this step's end, it is there from the beginning of the next.
    return ledger.peak.total_bytes + ledger.now.parts[OPTIMIZER]


def measure_process(config: TrainConfig) -> int:
    """Return this process's resident size in bytes once all that training loads is loaded.

    For that it trains and validates the smallest net of the family for one step, on noise.
    """
    model = _smallest_like(config.model)
    samples = _WARM_UP_SAMPLES // model.length_multiple * model.length_multiple
    clips, shifts = 0.1 * torch.randn(2, samples), torch.tensor([-1, 1])
    with FakeTensorMode():  # loads what the loss needs without its weights, which are counted apart
        LossMix(config.loss, torch.device("cpu"), with_weights=False)
    plain = dataclasses.replace(config, loss=LossConfig(), compile=False)
    learner = Learner(build_model(model), plain)
    learner.descend(learner.try_out(clips, shifts))
    evaluate(learner.restore, ValidationSet(damaged=clips, target=clips, shifts=shifts))
    return psutil.Process().memory_info().rss


def _smallest_like(model: ModelConfig) -> ModelConfig:
    """Return a net with one block of the kind that a net has."""
    factors = model.factors[:1]
    channels = tuple(min(c, _WARM_UP_WIDTH) for c in model.channels[: 1 + len(factors)])
    return dataclasses.replace(model, channels=channels, blocks=(1,), factors=factors)


def _rehearse(config: TrainConfig, device: torch.device) -> tuple[Alive, Alive]:
    """Return what is alive at the peak of a step or validation, and what between two steps."""
    ledger = Ledger()
    rehearsal = Rehearsal(config, device, observer=ledger)
    net = rehearsal.learner.net
    ledger.put(list(net.parameters()), PARAMETERS)
    ledger.put(list(net.buffers()), NET)
    mix = rehearsal.learner.mix
    ledger.put(mix.tensors(), FOREIGN)
    mix.on_part = lambda part: setattr(ledger, "part", f"{LOSS}: {part}")
    ledger.put(rehearsal.clips, CLIPS)
    ledger.begin(HELD_OUT)
    validation = rehearsal.build_validation()
    with _put_down_to_parts(net, ledger):
        _rehearse_step(rehearsal, ledger)  # makes the optimizer's state
        _rehearse_step(rehearsal, ledger)
    training = ledger.peak
    ledger.begin(VALIDATION)
    rehearsal.validate(validation)
    peak = max(training, ledger.peak, key=lambda alive: alive.total_bytes)
    return peak, ledger.now.copy()


def _rehearse_step(rehearsal: Rehearsal, ledger: Ledger) -> None:
    ledger.begin(CLIPS)
    tried = rehearsal.try_out()
    ledger.part = BACKWARD
    rehearsal.descend(tried)
    ledger.put(rehearsal.learner.optimizer.state_dict(), OPTIMIZER)


@contextlib.contextmanager
def _put_down_to_parts(net: nn.Module, ledger: Ledger) -> Iterator[None]:
    """Put down to each part of a net what it makes, to the loss what comes after the net, and
    gradients of weights to their own part."""

    def enter(part: str, *_: object) -> None:
        ledger.part = part

    def keep_gradient(parameter: Tensor) -> None:
        ledger.put(parameter.grad, GRADIENTS)

    with contextlib.ExitStack() as hooks:
        for name, part in [("", net), *named_parts(net)]:
            before, after = (name, NET) if name else (NET, LOSS)
            hooks.callback(part.register_forward_pre_hook(functools.partial(enter, before)).remove)
            hooks.callback(part.register_forward_hook(functools.partial(enter, after)).remove)
        for parameter in net.parameters():
            hook = parameter.register_post_accumulate_grad_hook(keep_gradient)  # type: ignore[no-untyped-call]
            hooks.callback(hook.remove)
        yield


def _recordings_read(config: TrainConfig, data: DataSet) -> int:
    """Return how much of the memory-mapped recordings training is expected to have read.

    The system takes these pages back when it needs them, but they count as resident.
    """
    training = sum(recording.samples for recording in data.training)
    held_out = config.validation.clips * config.validation.clip_samples
    clips = config.steps * config.data.batch_size
    unread = max(0.0, 1 - config.data.clip_samples / training) ** clips
    return round(data.samples.itemsize * (training * (1 - unread) + held_out))
