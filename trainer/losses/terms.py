"""The terms that a loss is the sum of, by name: built here, each written down in a file of its own.

How they are weighed and added up is in mix.py.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.loss_config import CRITIC_TERMS, FOREIGN_TERMS, LossConfig
from trainer.losses import foreign
from trainer.losses.cdpam import CdpamDistance, load_cdpam
from trainer.losses.critic import Critic
from trainer.losses.dac import DacDistance
from trainer.losses.encodec import EncodecDistance
from trainer.losses.spectral import l1_distance, mel_distance, stft_distance

Distance = Callable[[Tensor, Tensor], Tensor]
"""From (estimate, target), each [clip, sample] at 44.1 kHz in float32, to a value a clip, [clip].

A clip's value does not depend on the others, and only the estimate has a gradient."""


DISCRIMINATOR = "discriminator"

_SPECTRAL = {"stft": stft_distance, "mel": mel_distance, "l1": l1_distance}


class TermGroup(Protocol):
    """One term, or several that share a forward pass."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the terms, in the order of TERMS."""

    def __call__(self, estimate: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return what a Distance does, of each term by name."""


class Term:
    """A term on its own, as a group of one."""

    def __init__(self, name: str, distance: Distance) -> None:
        self.names, self.distance = (name,), distance

    def __call__(self, estimate: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {self.names[0]: self.distance(estimate, target)}


def build_terms(
    config: LossConfig, device: torch.device, *, with_weights: bool = True
) -> list[TermGroup]:
    """Build every term that has a weight, 0 included, in the order of TERMS.

    `with_weights=False` reads no weights: foreign nets then have their real shapes and random
    values. Raises ValueError where the weights of a foreign net are missing or not its own.
    """
    groups: list[TermGroup] = [
        Term(name, _build_distance(name, config, device, with_weights=with_weights))
        for name in config.weights
        if name not in CRITIC_TERMS
    ]
    if any(name in config.weights for name in CRITIC_TERMS):
        groups.append(Critic(config, device))
    return groups


def check_foreign(config: LossConfig) -> None:
    """Read the weights of every foreign net that a loss has or names, before anything is begun.

    Raises ValueError where they are not its own; of those that are missing others tell.
    """
    named = {"dac": config.dac_weights, "encodec": config.encodec_weights}
    absent = foreign.absent_terms(config)
    for name in FOREIGN_TERMS:
        is_used = name in config.weights or named.get(name) is not None
        if is_used and name not in absent:
            with_term = dataclasses.replace(config, **{name: config.weights.get(name, 0.0)})  # type: ignore[arg-type]
            _build_distance(name, with_term, torch.device("cpu"), with_weights=True)


def foreign_parameters(groups: Iterable[TermGroup]) -> dict[str, int]:
    """Return how many parameters the nets of terms have, by term; `discriminator` for the critic's.

    Frozen ones are counted as far as a term looks into them.
    """
    nets = nets_of(groups)
    return {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}


def nets_of(groups: Iterable[TermGroup]) -> dict[str, nn.Module]:
    """Return the nets of terms, by term; `discriminator` for the critic's."""
    nets: dict[str, nn.Module] = {}
    for group in groups:
        if isinstance(group, Critic):
            nets[DISCRIMINATOR] = group.net
        elif isinstance(group, Term) and isinstance(group.distance, nn.Module):
            nets[group.names[0]] = group.distance
    return nets


def _build_distance(
    name: str, config: LossConfig, device: torch.device, *, with_weights: bool
) -> Distance:
    match name:
        case "cdpam":
            return _build_cdpam(device, with_weights=with_weights)
        case "dac":
            file = foreign.find_dac(config) if with_weights else None
            return DacDistance(**_depth(config, name), weights=file).to(device)
        case "encodec":
            folder = foreign.find_encodec(config) if with_weights else None
            return EncodecDistance(**_depth(config, name), weights=folder).to(device)
    return _SPECTRAL[name]


def _build_cdpam(device: torch.device, *, with_weights: bool) -> CdpamDistance:
    return load_cdpam(foreign.find_cdpam(), device) if with_weights else CdpamDistance().to(device)


def _depth(config: LossConfig, name: str) -> dict[str, Any]:
    return {part: getattr(config, f"{name}_{part}") for part in ("blocks", "features")}
