"""What nets are made of, in one dimension (time) or two (time and frequency).

Activations lie channels-last, [batch, time, channel] or [batch, time, frequency, channel]. Down-
and up-sampling by a factor are then one matrix over patches (a convolution whose stride is its
kernel), so every weight that mixes channels is a plain 2-D matrix: what Muon wants, without any
viewing or transposing. The depthwise convolution, which mixes none, is the only convolution.
"""

from torch import Tensor, nn

from trainer.model_config import ModelConfig
from trainer.snake import Snake

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}


class ConvNeXtBlock(nn.Module):
    """Residual block: depthwise convolution, norm over channels, pointwise MLP 4 times as wide.

    Liu et al. 2022, A ConvNet for the 2020s (arXiv:2201.03545), figure 4, in one dimension or two.
    The norm is over channels alone, so an output depends on no more than the kernel's reach.
    """

    def __init__(self, channels: int, config: ModelConfig, *, dimensions: int) -> None:
        super().__init__()
        self.depthwise = _CONVOLUTIONS[dimensions](
            channels,
            channels,
            config.kernel_size,
            padding=reach_of_block(config),
            dilation=config.dilation,
            groups=channels,
        )
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.activate = Snake(4 * channels) if config.activation == "snake" else nn.GELU()
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.movedim(-1, 1)).movedim(1, -1)  # convolves [B, C, T] or [B, C, T, F]
        return x + self.narrow(self.activate(self.widen(self.norm(y))))  # type: ignore[no-any-return]


class DownSample(nn.Module):
    """[batch, size…, channel] to [batch, size / factor…, out]: a convolution of stride = kernel."""

    def __init__(self, channels: int, out: int, factor: int, *, dimensions: int) -> None:
        super().__init__()
        self.factor = factor
        self.dimensions = dimensions
        self.mix = nn.Linear(channels * factor**dimensions, out)

    def forward(self, x: Tensor) -> Tensor:
        for dim in range(self.dimensions, 0, -1):
            size = (x.shape[dim] // self.factor, self.factor)
            x = x.unflatten(dim, size)  # type: ignore[no-untyped-call]
        patches = x.permute(_patches_last(self.dimensions)).flatten(1 + self.dimensions)
        return self.mix(patches)  # type: ignore[no-any-return]


class UpSample(nn.Module):
    """[batch, size…, channel] to [batch, size * factor…, out]: a transposed one likewise."""

    def __init__(self, channels: int, out: int, factor: int, *, dimensions: int) -> None:
        super().__init__()
        self.factor = factor
        self.dimensions = dimensions
        self.mix = nn.Linear(channels, out * factor**dimensions)

    def forward(self, x: Tensor) -> Tensor:
        patch = (self.factor,) * self.dimensions
        x = self.mix(x).unflatten(-1, (*patch, -1))
        x = x.permute(_patches_between(self.dimensions))
        for dim in range(1, 1 + self.dimensions):
            x = x.flatten(dim, dim + 1)
        return x


def reach_of_block(config: ModelConfig) -> int:
    """Return how far to each side a block looks, in its own steps."""
    return config.kernel_size // 2 * config.dilation


def _patches_last(dimensions: int) -> tuple[int, ...]:
    """Return the order [B, T/f, F/f, f, f, C] of what lies as [B, T/f, f, F/f, f, C]."""
    return (0, *range(1, 2 * dimensions, 2), *range(2, 2 * dimensions + 1, 2), 2 * dimensions + 1)


def _patches_between(dimensions: int) -> tuple[int, ...]:
    """Return the order [B, T, f, F, f, C] of what lies as [B, T, F, f, f, C]."""
    pairs = ((dim, dim + dimensions) for dim in range(1, 1 + dimensions))
    return (0, *(dim for pair in pairs for dim in pair), 2 * dimensions + 1)
