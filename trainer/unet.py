"""The body of a U-Net, in one dimension or two: what comes in, down through stages and up again."""

from typing import cast

import torch
from torch import Tensor, nn

from trainer.blocks import ConvNeXtBlock, DownSample, UpSample, reach_of_block
from trainer.model_config import ModelConfig


class UNetStage(nn.Module):
    """One depth of the U-Net: down-sample, blocks, [deeper stages], join, blocks, up-sample.

    The skip leaves right after down-sampling, so that also the deepest join sees two different
    things: what its blocks were given and what came of it.
    """

    def __init__(self, depth: int, config: ModelConfig, *, dimensions: int, out: int) -> None:
        super().__init__()
        outer, width = config.channels[depth : depth + 2]
        blocks, factor = config.blocks[depth], config.factors[depth]

        def build_blocks() -> nn.Sequential:
            row = (ConvNeXtBlock(width, config, dimensions=dimensions) for _ in range(blocks))
            return nn.Sequential(*row)

        self.down = DownSample(outer, width, factor, dimensions=dimensions)
        self.encode = build_blocks()
        self.join = nn.Linear(2 * width, width)
        self.decode = build_blocks()
        self.up = UpSample(width, out, factor, dimensions=dimensions)


def build_stages(config: ModelConfig, *, dimensions: int, out: int) -> nn.ModuleList:
    """Build the stages of a U-Net over so many dimensions, which gives `out` channels."""
    outer = (out, *config.channels[1:])
    stages = (
        UNetStage(depth, config, dimensions=dimensions, out=outer[depth])
        for depth in range(len(config.blocks))
    )
    return nn.ModuleList(stages)


def apply_stages(stages: nn.ModuleList, x: Tensor) -> Tensor:
    """Return what a U-Net makes of [batch, size…, channel]: the same sizes, its own channels.

    Each size must be a multiple of the product of the factors.
    """
    skips = []
    in_order = cast("list[UNetStage]", list(stages))
    for stage in in_order:
        x = stage.down(x)
        skips.append(x)
        x = stage.encode(x)
    for stage, skip in zip(reversed(in_order), reversed(skips), strict=True):
        x = stage.up(stage.decode(stage.join(torch.cat((x, skip), dim=-1))))
    return x


def edges_of_stages(stages: nn.ModuleList) -> tuple[nn.Linear, nn.Linear]:
    """Return the first layer and the last."""
    outermost = cast("UNetStage", stages[0])
    return outermost.down.mix, outermost.up.mix


def reach_of_stages(config: ModelConfig) -> int:
    """Return how far from a place the farthest is that it depends on, in steps of the input.

    All blocks of a stage, on the way down and up, look half a kernel to each side, in steps of the
    stage's stride; both ways a place stands for its whole patch.
    """
    stride, reach = 1, 0
    for blocks, factor in zip(config.blocks, config.factors, strict=True):
        stride *= factor
        reach += 2 * blocks * reach_of_block(config) * stride
    return reach + stride - 1
