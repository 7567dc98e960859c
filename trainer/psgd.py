"""PSGD with Kronecker factors: heavyball's PSGDKron, made fit to be resumed and rehearsed.

Li 2015, Preconditioned Stochastic Gradient Descent (arXiv:1512.04202). Imported only where it is
used: the package is slow to import, and a machine may lack it.

Read in heavyball 3.2.1, and dealt with here:

- `heavyball.utils.compile_mode` holds for the whole process. Its default compiles with max-autotune
  (20 to 60 s, picked by timing, so no two runs are alike) and fails on a CPU. Steps run uncompiled,
  and the setting is put back after each.
- Its checkpoint holds a pickled function, and loading one turns float64 state into float32.
- It finds a weight's state by the address of the weight; tensors without values all have none.
- It refuses a weight whose first gradient is zero: all but the last layer of a net that starts as
  the identity. Such a weight rests until it has a gradient.

Its random numbers come from torch's global generator, which a checkpoint holds beside this state.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import heavyball
import heavyball.utils
import torch
from torch import Tensor, nn

_BETA2 = 0.999
_LARGEST_NOTHING = 1e-8
"""heavyball takes a gradient for zero when no entry is larger."""


class PSGD(heavyball.PSGDKron):  # type: ignore[misc]
    """PSGDKron, uncompiled, with a state of tensors, numbers, strings, lists and dicts alone."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        preconditioner_probability: float | None,
    ) -> None:
        """Set up; without a probability the preconditioner is updated by heavyball's schedule."""
        schedule = {}
        if preconditioner_probability is not None:
            schedule["preconditioner_update_probability"] = float(preconditioner_probability)
        super().__init__(
            list(parameters),
            lr=lr,
            betas=(momentum, _BETA2),
            weight_decay=weight_decay,
            store_triu_as_line=False,  # the same values: faster, for twice the memory
            **schedule,
        )

    def step(self, closure: None = None) -> None:
        """Update the weights and clear their gradients."""
        group = self.param_groups[0]
        group["base_lr"] = group["lr"]  # heavyball warns of a rate that changes, and copes with it
        for parameter in group["params"]:
            if parameter not in self.state and not _is_something(parameter.grad):
                parameter.grad = None
        with _uncompiled():
            super().step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the state: the counts of steps, and tensors by the number of the weight."""
        group = self.param_groups[0]
        return {
            "lr": group["lr"],
            "steps": int(group.get("step_count", 0)),
            "updates": dict(self.inner_group),
            "weights": [_to_plain(self.state.get(p, {}).get(0, {})) for p in group["params"]],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up a saved state, every number with the precision that it was saved with."""
        group = self.param_groups[0]
        group["lr"] = group["base_lr"] = state_dict["lr"]
        group["step_count"] = state_dict["steps"]
        self.inner_group = dict(state_dict["updates"])
        self.state.clear()
        for parameter, saved in zip(group["params"], state_dict["weights"], strict=True):
            if saved:
                self.state[parameter] = {0: _from_plain(saved, parameter.device)}

    def state_(self, arg: Tensor, fail: bool = True) -> dict[str, Any]:
        """Return a weight's own state; heavyball calls this."""
        state: dict[str, Any] = self.state.setdefault(arg, {}).setdefault(0, {})
        return state

    def _set_views(self, p: Tensor, group: object) -> tuple[Tensor]:
        return (p,)


def _is_something(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient.abs() > _LARGEST_NOTHING).any())


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    before = heavyball.utils.compile_mode
    heavyball.utils.compile_mode = None
    try:
        yield
    finally:
        heavyball.utils.compile_mode = before


def _to_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: sorted(part) if isinstance(part, set) else part for key, part in state.items()}


def _from_plain(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    def restore(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part.to(device)
        if isinstance(part, list) and part and isinstance(part[0], int):
            return set(part)
        return [restore(entry) for entry in part] if isinstance(part, list) else part

    return {key: restore(part) for key, part in state.items()}
