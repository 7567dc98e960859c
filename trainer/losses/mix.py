"""The loss: its terms weighed and added, and its gradient at what the net made.

Every term looks at a few clips at a time, at a copy of the net's output that remembers nothing of
the net: what a term keeps for its way back is freed before the next few clips, so the peak is the
largest term's on a few clips, not the sum of all on the whole batch. The gradient is the same,
because no term lets one clip influence another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.loss_config import LossConfig
from trainer.losses.balancer import GradientBalancer
from trainer.losses.critic import Critic
from trainer.losses.terms import DISCRIMINATOR, TermGroup, build_terms, nets_of


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What the loss says of a batch."""

    total: Tensor
    """The weighted sum of the terms, one number."""
    terms: Mapping[str, Tensor]
    """Mean over clips of every term, those of weight 0 included."""
    gradient_norms: Mapping[str, Tensor]
    """Of every trained term: the norm of its gradient at a clip, before weighing, mean over
    clips."""
    gradient: Tensor
    """Of `total` at the estimate, [clip, sample]; with a balancer, of the balanced sum."""


class LossMix:
    """The terms of a loss, with whatever state they have."""

    def __init__(
        self, config: LossConfig, device: torch.device, *, with_weights: bool = True
    ) -> None:
        """Build the terms. Without weights, foreign nets have their shapes and no meaning.

        Raises ValueError where a foreign net cannot be had.
        """
        self._device = device
        self._weights = config.weights
        self._clips_at_once = config.clips_at_once
        self.groups = build_terms(config, device, with_weights=with_weights)
        self._critic = next((group for group in self.groups if isinstance(group, Critic)), None)
        is_balanced = config.balance == "gradient"
        self._balancer = GradientBalancer(self._weights) if is_balanced else None
        self.on_part: Callable[[str], None] = lambda part: None
        """Told what is computed next: `discriminator`, which learns, or terms by their names."""

    def measure(self, estimate: Tensor, target: Tensor) -> Loss:
        """Return the loss of estimates and targets, both [clip, sample]. A critic learns first."""
        if self._critic is not None:
            self.on_part(DISCRIMINATOR)
            self._critic.learn(estimate, target)
        values: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        for group in self.groups:
            self.on_part(", ".join(group.names))
            more_values, more_gradients = self._measure_group(group, estimate, target)
            values |= more_values
            gradients |= more_gradients
        terms = {name: value.mean() for name, value in values.items()}
        norms = {name: gradient.norm(dim=1).mean() for name, gradient in gradients.items()}
        scales = self._weights if self._balancer is None else self._balancer.scales(norms)
        weighed = [gradients[name] * (scales[name] / len(estimate)) for name in gradients]
        return Loss(
            total=torch.stack([self._weights[name] * terms[name] for name in gradients]).sum(),
            terms=terms,
            gradient_norms=norms,
            gradient=torch.stack(weighed).sum(0),
        )

    def tensors(self) -> list[Tensor]:
        """Return the weights of all nets that terms have."""
        nets = nets_of(self.groups).values()
        return [tensor for net in nets for tensor in (*net.parameters(), *net.buffers())]

    def state_dict(self) -> dict[str, Any]:
        """Return what the loss has learnt so far."""
        parts = {"balancer": self._balancer, "critic": self._critic}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        if self._balancer is not None:
            self._balancer.load_state_dict(state["balancer"], self._device)
        if self._critic is not None:
            self._critic.load_state_dict(state["critic"])

    def _measure_group(
        self, group: TermGroup, estimate: Tensor, target: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return each term's values [clip], and each trained term's gradients [clip, sample]."""
        size = self._clips_at_once
        pairs = zip(torch.split(estimate, size), torch.split(target, size), strict=True)
        parts = [self._measure_some(group, *pair) for pair in pairs]
        values, gradients = (
            {name: torch.cat([part[name] for part in kind]) for name in kind[0]}
            for kind in zip(*parts, strict=True)
        )
        return values, gradients

    def _measure_some(
        self, group: TermGroup, estimate: Tensor, target: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Measure a few clips, and forget all that it took but the results."""
        trained = [name for name in group.names if self._weights.get(name, 0) > 0]
        made = estimate.detach().requires_grad_(bool(trained))
        with torch.set_grad_enabled(bool(trained)):
            values = group(made, target)
        gradients = {}
        for name in trained:
            is_last = name == trained[-1]
            (gradients[name],) = torch.autograd.grad(
                values[name].sum(), made, retain_graph=not is_last
            )
        return {name: value.detach() for name, value in values.items()}, gradients
