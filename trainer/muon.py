"""Muon: momentum whose matrices are made orthogonal before they move weights.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. The state, the coefficients and the
arithmetic are torch.optim.Muon's; only that one computes in bfloat16 everywhere. CPUs without
instructions for it take ten times as long, and those with them would round otherwise: on a CPU,
here, it is float32.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_TINY = 1e-7


class Muon(torch.optim.Muon):
    """Muon over matrices [out, in], its update scaled by sqrt(max(1, out / in)), its author's."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Take matrices; unless a `dtype` to compute in is given, it follows from their device."""
        super().__init__(list(matrices), lr=lr, momentum=momentum, weight_decay=weight_decay)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: dict[str, float]) -> None:
        gradient, momentum = weight.grad, group["momentum"]
        assert gradient is not None
        state = self.state[weight]
        mean = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - momentum)
        dtype = self._dtype or _dtype_on(weight.device)
        update = orthogonalize(gradient.lerp(mean, momentum), dtype=dtype)
        rows, columns = weight.shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalize(matrix: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return about U V^T of a matrix's singular value decomposition U S V^T, computed in `dtype`.

    By five of Newton's and Schulz's iterations, quintic, with coefficients that leave singular
    values between 0.68 and 1.13.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(dtype)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=_TINY)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _dtype_on(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16
