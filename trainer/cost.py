"""What a net costs before it is trained: its parts, its arithmetic, its reach, its files."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import SAMPLE_RATE_HZ, TrainConfig
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
    with FlopCounterMode(display=False) as counter:
        rehearsal.restore()
    seconds = rehearsal.clips.numel() / SAMPLE_RATE_HZ
    operations: int = counter.get_total_flops()  # a multiply-add is two
    return round(operations / 2 / seconds)


def checkpoint_bytes(config: TrainConfig) -> int:
    """Return what a trial keeps on disk: `last.pt` and `best.safetensors`.

    Its journal, up to a hundred bytes a step, is not in it.
    """
    rehearsal = _rehearse_one_clip(config)
    rehearsal.descend(rehearsal.try_out())
    weights = _tensors(rehearsal.learner.net.state_dict())
    learner = rehearsal.learner
    state = _tensors([learner.optimizer.state_dict(), learner.mix.state_dict()])
    rng = torch.get_rng_state()
    last = sum(t.nbytes + _BYTES_PER_ENTRY for t in [*weights, *state, rng])
    best = sum(t.nbytes + _BYTES_PER_WEIGHT_NAME for t in weights)
    return last + best


def _rehearse_one_clip(config: TrainConfig) -> Rehearsal:
    """Return the rehearsal of what does not depend on the batch."""
    one = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=1))
    return Rehearsal(one, torch.device("cpu"))


def _tensors(state: object) -> list[Tensor]:
    return [leaf for leaf in tree_iter(state) if isinstance(leaf, Tensor)]
