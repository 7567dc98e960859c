"""Layers of nets that others have trained: their weights stay, and little is kept for the way back.

A loss looks at clips through such a net, so gradients go through it, never into it. torch keeps the
input of every convolution nevertheless, which only a gradient of the weights would need.
"""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv1d_input

from trainer.snake import snake


class FrozenConv1d(nn.Module):
    """nn.Conv1d on [batch, channel, sample] that keeps nothing of its input for the way back."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.weight = _frozen(weight)
        self.bias = None if bias is None else _frozen(bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @classmethod
    def from_conv(cls, conv: nn.Conv1d) -> "FrozenConv1d":
        """Return a frozen copy of a convolution without groups; weight norm is to be folded."""
        stride, dilation = conv.stride[0], conv.dilation[0]
        assert conv.groups == 1
        assert isinstance(conv.padding, tuple)
        return cls(
            conv.weight, conv.bias, stride=stride, padding=conv.padding[0], dilation=dilation
        )

    @property
    def span(self) -> int:
        """Return how many samples the taps reach over."""
        return int(self.weight.shape[2] - 1) * self.dilation + 1

    def forward(self, x: Tensor) -> Tensor:
        where = (self.stride, self.padding, self.dilation)
        result: Tensor = _Conv1d.apply(x, self.weight, self.bias, where)  # type: ignore[no-untyped-call]
        return result


class FrozenSnake(nn.Module):
    """DAC's Snake1d on [batch, channel, sample]: x + sin(alpha x)**2 / (alpha + 1e-9)."""

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = _frozen(alpha.flatten())  # [1, C, 1] -> [C]

    def forward(self, x: Tensor) -> Tensor:
        return snake(x, self.alpha, channel_dim=1)


class Residual(nn.Module):
    """A body beside a shortcut: their sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.shortcut(x) + self.body(x)
        return made


class _Conv1d(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, where: tuple[int, int, int]
    ) -> Tensor:
        stride, padding, dilation = where
        return F.conv1d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    def setup_context(
        ctx: FunctionCtx,
        inputs: tuple[Tensor, Tensor, Tensor | None, tuple[int, int, int]],
        output: Tensor,
    ) -> None:
        x, weight, _, where = inputs
        ctx.save_for_backward(weight)
        ctx.shape, ctx.where = x.shape, where  # type: ignore[attr-defined]

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors  # type: ignore[attr-defined]
        stride, padding, dilation = ctx.where  # type: ignore[attr-defined]
        of_x = conv1d_input(  # type: ignore[no-untyped-call]
            ctx.shape,  # type: ignore[attr-defined]
            weight,
            gradient,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        return of_x, None, None, None


def check_shapes(build: Callable[[], Mapping[str, Tensor]], weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless weights have the names and shapes of those that `build` returns.

    Those are built without values: what a file says of a net's size may be more than there is
    memory for, and the weights in it are not.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that would have no weights
        expected = {name: value.shape for name, value in build().items()}
    if {name: value.shape for name, value in weights.items()} != expected:
        raise ValueError("the weights are those of another net")


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=False)
