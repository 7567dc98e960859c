"""The frames net: 1-D ConvNeXt blocks over STFT frames, each bin a channel."""

from typing import cast

from torch import Tensor, nn

from trainer.blocks import ConvNeXtBlock, reach_of_block
from trainer.model_config import ModelConfig
from trainer.net import start_at_zero
from trainer.spectral_net import BINS, HOP_SAMPLES, SpectralNet


class FramesNet(SpectralNet):
    """Stages of blocks without down-sampling: it knows each bin by its place."""

    grid_samples = HOP_SAMPLES

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, reach_frames=sum(config.blocks) * reach_of_block(config))
        layers: list[nn.Module] = []
        width = BINS
        for channels, blocks in zip(config.channels, config.blocks, strict=True):
            layers += [nn.Linear(width, channels), nn.LayerNorm(channels)]
            layers += [ConvNeXtBlock(channels, config, dimensions=1) for _ in range(blocks)]
            width = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 2 * BINS)
        if self.changes_input:
            start_at_zero(self.head)

    def edges(self) -> tuple[nn.Linear, nn.Linear]:
        return cast("nn.Linear", self.body[0]), self.head

    def judge(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        log_gain, turn = self.head(self.body(levels)).chunk(2, dim=-1)  # [B, frame, 2 * bin]
        return log_gain, turn
