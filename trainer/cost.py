"""What a net costs before it is trained: its parts, its arithmetic, its reach, its files."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from trainer.config import SAMPLE_RATE_HZ, TrainConfig
from trainer.losses.terms import foreign_parameters
from trainer.net import Net
from trainer.rehearsal import Rehearsal

_BYTES_PER_ENTRY = 290
"""What a tensor's name, shape and place take in a checkpoint, beside its values."""
_BYTES_PER_WEIGHT_NAME = 95
"""Likewise in a safetensors file."""


def named_parts(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a net by which a user knows it: its stages' and its lists' entries."""
    for name, child in net.named_children():
        is_list_of_net = prefix == "" and isinstance(child, nn.Sequential)
        if is_list_of_net or type(child).forward is nn.Module.forward:
            yield from named_parts(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def parameters_by_part(net: nn.Module) -> dict[str, int]:
    """Return the number of trained values of each part that has any."""
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in named_parts(net)}
    return {name: size for name, size in sizes.items() if size}


def receptive_field_ms(net: Net) -> float:
    """Return how much of the input, at most, one output sample depends on."""
    return (2 * net.reach_samples + 1) / SAMPLE_RATE_HZ * 1000


def multiply_adds_per_second(config: TrainConfig) -> int:
    """Return the multiply-adds of the net's forward pass over a second of audio.

    Counted over a whole training clip: matrix products and convolutions. Not in it are Fourier
    transforms, norms, activations and what is added or scaled element by element.
    """
    rehearsal = _rehearse_one_clip(config)
    with _MultiplyAdds() as counted:
        rehearsal.restore()
    total: float = counted.sum
    return round(total / _seconds_of(rehearsal))


@dataclass(frozen=True, kw_only=True)
class LossCost:
    """What a part of the loss costs."""

    parameters: int
    """Of the net that it has; 0 where it has none."""
    multiply_adds_per_second: int
    """Of audio: of looking at an estimate and its target, and of the way back."""


def cost_of_loss(config: TrainConfig) -> dict[str, LossCost]:
    """Return what each part of the loss costs: terms by name, those that share a net together, and
    `discriminator` for what it takes to learn.

    Counted as for the net: Fourier transforms are not in it.
    """
    rehearsal = _rehearse_one_clip(config)
    mix = rehearsal.learner.mix
    until: list[tuple[str, int]] = []
    with _MultiplyAdds() as counted:
        mix.on_part = lambda part: until.append((part, counted.sum))
        rehearsal.judge()
        mix.on_part("")
    sizes = foreign_parameters(mix.groups)
    return {
        part: LossCost(
            parameters=sizes.get(part, 0),
            multiply_adds_per_second=round((after - before) / _seconds_of(rehearsal)),
        )
        for (part, before), (_, after) in itertools.pairwise(until)
    }


def checkpoint_bytes(config: TrainConfig) -> int:
    """Return what a trial keeps on disk: `last.pt`, `previous.pt` and `best.safetensors`.

    Not in it: its journal, up to a hundred bytes a step, and a `last.pt` that is being written.
    """
    rehearsal = _rehearse_one_clip(config)
    rehearsal.descend(rehearsal.try_out())
    weights = _tensors(rehearsal.learner.net.state_dict())
    learner = rehearsal.learner
    state = _tensors([learner.optimizer.state_dict(), learner.mix.state_dict()])
    rng = torch.get_rng_state()
    last = sum(t.nbytes + _BYTES_PER_ENTRY for t in [*weights, *state, rng])
    best = sum(t.nbytes + _BYTES_PER_WEIGHT_NAME for t in weights)
    return 2 * last + best


def _rehearse_one_clip(config: TrainConfig) -> Rehearsal:
    """Return the rehearsal of what does not depend on the batch."""
    one = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=1))
    return Rehearsal(one, torch.device("cpu"))


def _seconds_of(rehearsal: Rehearsal) -> float:
    return rehearsal.clips.numel() / SAMPLE_RATE_HZ


class _MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts them by torch's own formulas. Its FlopCounterMode, which counts by module too, cannot
    follow a gradient that is asked of a tensor within the graph."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sum: float = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.sum += formula(*args, **(kwargs or {}), out_val=made) / 2  # a multiply-add is two
        return made


def _tensors(state: object) -> list[Tensor]:
    return [leaf for leaf in tree_iter(state) if isinstance(leaf, Tensor)]
