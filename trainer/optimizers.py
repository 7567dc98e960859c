"""How weights move: Muon for the matrices between layers with AdamW for all else, AdamW, PSGD.

Here they are built, stepped and saved as one; schedule.py says what share of its rate each has at a
step; muon.py and psgd.py have those that are not torch's own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.muon import Muon
from trainer.net import Net
from trainer.optimizer_config import OptimizerConfig
from trainer.schedule import rate_share

_MUON_SIDE_BETAS = (0.9, 0.95)
_ADAMW_BETA2 = 0.999


class Optimizer:
    """One or two torch optimizers, stepped and saved as one, with clipping before each step."""

    def __init__(
        self, parts: Mapping[str, torch.optim.Optimizer], config: OptimizerConfig, *, steps: int
    ) -> None:
        """Take parts by the name of the rate of each, for a training of `steps` in all."""
        self._parts = dict(parts)
        self._config = config
        self._steps = steps
        self._clip_norm = float("inf") if config.clip_norm is None else config.clip_norm
        self._full_rates = self.learning_rates()
        groups = (group for part in self._parts.values() for group in part.param_groups)
        self._parameters = [p for group in groups for p in group["params"]]
        self._step = 0
        self._set_rates(step=1)

    def step(self) -> Tensor:
        """Clip the gradients to the norm allowed, update, clear; return the norm before clipping.

        A non-finite norm leaves the weights as they are: the caller ends the trial.
        """
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if torch.isfinite(norm):
            self._step += 1
            self._set_rates(step=self._step)
            for part in self._parts.values():
                part.step()
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)
        return norm

    def is_clipped(self, norm: float) -> bool:
        """Return whether a gradient of this norm was made smaller."""
        return norm > self._clip_norm

    def learning_rates(self) -> dict[str, float]:
        """Return the rate in use of each part, by name (`lr`, `adamw_lr`): the last step's."""
        return {name: part.param_groups[0]["lr"] for name, part in self._parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the state of every part, in types that are safe to load."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {"name": self._config.name, "step": self._step, "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state. Raises ValueError where it is another optimizer's or net's."""
        saved, name = state.get("name"), self._config.name
        if saved != name:
            raise ValueError(f"optimizer.name={name}; must be {saved}, as in the checkpoint")
        try:
            for rate, part in self._parts.items():
                part.load_state_dict(state["parts"][rate])
        except (KeyError, ValueError) as error:
            what = "optimizer state in the checkpoint"
            raise ValueError(f"{what}={name}; must be of the same weights: {error}") from error
        self._step = state["step"]

    def _set_rates(self, *, step: int) -> None:
        share = rate_share(
            step,
            steps=self._steps,
            warmup_steps=self._config.warmup_steps,
            schedule=self._config.schedule,
        )
        for name, part in self._parts.items():
            for group in part.param_groups:
                group["lr"] = self._full_rates[name] * share


def build_optimizer(net: Net, config: OptimizerConfig, *, steps: int) -> Optimizer:
    """Build the configured optimizer over all of a net's weights, for a training of `steps`.

    Raises ValueError where a package that it needs is missing.
    """
    build = {"muon_adamw": _muon_and_adamw, "adamw": _adamw, "psgd": _psgd}[config.name]
    return Optimizer(build(net, config), config, steps=steps)


def split_parameters(net: Net) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (matrices between layers, everything else).

    Everything else: the layers that touch audio, depthwise kernels, norms and biases. A net's
    matrices are Linear weights [out, in * factor] already, so none needs viewing for Muon.
    """
    edges = {id(p) for layer in net.edges() for p in layer.parameters()}
    matrices = [p for p in net.parameters() if p.ndim == 2 and id(p) not in edges]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in net.parameters() if id(p) not in chosen]


_Parts = dict[str, torch.optim.Optimizer]


def _muon_and_adamw(net: Net, config: OptimizerConfig) -> _Parts:
    """Muon takes hidden matrices only: `split_parameters` says which."""
    assert config.lr is not None and config.momentum is not None and config.adamw_lr is not None
    matrices, others = split_parameters(net)
    muon = Muon(matrices, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    adamw = torch.optim.AdamW(
        others, lr=config.adamw_lr, betas=_MUON_SIDE_BETAS, weight_decay=config.weight_decay
    )
    return {"lr": muon, "adamw_lr": adamw}


def _adamw(net: Net, config: OptimizerConfig) -> _Parts:
    assert config.lr is not None and config.momentum is not None
    betas = (config.momentum, _ADAMW_BETA2)
    adamw = torch.optim.AdamW(
        net.parameters(), lr=config.lr, betas=betas, weight_decay=config.weight_decay
    )
    return {"lr": adamw}


def _psgd(net: Net, config: OptimizerConfig) -> _Parts:
    assert config.lr is not None and config.momentum is not None
    try:
        from trainer.psgd import PSGD
    except ModuleNotFoundError as error:
        if error.name != "heavyball":
            raise
        others = "muon_adamw or adamw"
        lacking = f"must be {others}: psgd needs the package heavyball, which is not installed"
        raise ValueError(f"optimizer.name=psgd; {lacking}") from error
    psgd = PSGD(
        net.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        preconditioner_probability=config.preconditioner_probability,
    )
    return {"lr": psgd}
