"""Snake, an activation with a frequency of its own for each channel, that is light on memory."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

_ABOVE_ZERO = 1e-9
"""Added to what is divided by, as BigVGAN and DAC do."""


def snake(x: Tensor, alpha: Tensor, *, channel_dim: int) -> Tensor:
    """Return x + sin(alpha x)**2 / (alpha + 1e-9), in x's type.

    `alpha` [channel] is linear, and goes along one dimension of x: -1 where channels come last, 1
    in DAC's [batch, channel, sample] (whose own alpha, [1, channel, 1], is to be flattened).
    Of all this only x and alpha are kept for the way back, where the plain formula keeps five
    tensors of x's size; no gradient of alpha is computed unless it is needed. No second gradients.

    Ziyin et al. 2020, Neural Networks Fail to Learn Periodic Functions (arXiv:2006.08195), eq. 3.
    Raises ValueError when alpha does not fit.
    """
    channels = x.shape[channel_dim]
    if alpha.shape != (channels,):
        raise ValueError(f"alpha={list(alpha.shape)}; must be [{channels}], a number per channel")
    shape = [1] * x.ndim
    shape[channel_dim] = channels
    result: Tensor = _Snake.apply(x, alpha.view(shape))  # type: ignore[no-untyped-call]
    return result


class Snake(nn.Module):
    """Snake on [..., channel], with a trained alpha per channel, kept as its logarithm.

    That is BigVGAN's `snake` with `snake_logscale` (Lee et al. 2023, arXiv:2206.04658), which
    starts at alpha = 1. Of BigVGAN's there is no second parameter (its `snakebeta`) and no
    up-sampling around the activation, so what it folds over above nyquist stays in.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return snake(x, self.log_alpha.exp(), channel_dim=-1)


class _Snake(torch.autograd.Function):
    """The formula and its gradients; alpha is shaped to go along x's channels.

    What forward returns must come fresh from its last operation. Changed in place, or cast to the
    type that it has, it gets no gradients at all from torch.compile (torch 2.11), silently.
    """

    @staticmethod
    def forward(x: Tensor, alpha: Tensor) -> Tensor:
        periodic = (alpha * x).sin_().square_()  # float32 where alpha is, also for x in bfloat16
        result = x + periodic.mul_((alpha + _ABOVE_ZERO).reciprocal())
        return result if result.dtype == x.dtype else result.to(x.dtype)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, alpha = ctx.saved_tensors  # type: ignore[attr-defined]
        of_x, of_alpha = ctx.needs_input_grad  # type: ignore[attr-defined]
        divisor = alpha + _ABOVE_ZERO
        swing = (2 * alpha * x).sin_()
        for_alpha = None
        if of_alpha:
            sine = (alpha * x).sin_()
            slope = (swing * x).sub_(sine.square_().div_(divisor)).div_(divisor)
            others = [d for d, size in enumerate(alpha.shape) if size == 1]
            for_alpha = slope.mul_(gradient).sum(others, keepdim=True).to(alpha.dtype)
        if not of_x:
            return None, for_alpha
        return swing.mul_(alpha / divisor).add_(1).mul_(gradient).to(x.dtype), for_alpha
