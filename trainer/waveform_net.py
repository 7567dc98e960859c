"""The waveform net: a U-Net over samples."""

from torch import Tensor, nn

from trainer.model_config import ModelConfig
from trainer.net import Net, start_at_zero
from trainer.unet import apply_stages, build_stages, edges_of_stages, reach_of_stages


class WaveformNet(Net):
    """The log's waveform net (output23 on): clips [batch, sample] to clips of the same shape.

    The number of samples must be a multiple of the product of the factors; ValueError otherwise.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.length_multiple = config.length_multiple
        self.grid_samples = config.length_multiple
        self.reach_samples = reach_of_stages(config)
        self.adds_input = config.output == "difference"
        self.stages = build_stages(config, dimensions=1, out=1)
        if self.adds_input:
            start_at_zero(self.edges()[1])

    def edges(self) -> tuple[nn.Linear, nn.Linear]:
        return edges_of_stages(self.stages)

    def forward(self, clips: Tensor) -> Tensor:
        samples = clips.shape[-1]
        if samples % self.length_multiple:
            allowed = f"a multiple of {self.length_multiple}, the product of model.factors"
            raise ValueError(f"samples={samples}; must be {allowed}")
        estimate = apply_stages(self.stages, clips.unsqueeze(-1)).squeeze(-1)  # over [B, T, 1]
        return clips + estimate if self.adds_input else estimate
