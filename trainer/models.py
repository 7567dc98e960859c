"""The nets: a waveform U-Net and a spectrogram net, both made of 1-D ConvNeXt blocks.

Inside, activations lie channels-last, [batch, time, channel]. Down- and up-sampling by a factor
are then one matrix over patches (a convolution whose stride is its kernel), so every weight that
mixes channels is a plain 2-D matrix: what Muon wants, without any viewing or transposing.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.model_config import ModelConfig

N_FFT = 1024
HOP_SAMPLES = 256
MAGNITUDE_FLOOR = 1e-5
LOG_GAIN_LIMIT = 6.0
"""A spectrogram net may change a magnitude by at most e**6, about 52 dB."""


def build_model(config: ModelConfig) -> "WaveformUNet | FramesNet":
    """Build the configured net: clips [batch, sample] to clips of the same shape."""
    if config.family == "waveform":
        return WaveformUNet(config)
    return FramesNet(config)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class ConvNeXtBlock(nn.Module):
    """Residual block on [batch, time, channel]: depthwise convolution, norm, pointwise MLP.

    Liu et al. 2022, A ConvNet for the 2020s (arXiv:2201.03545), figure 4, in one dimension.
    The norm is over channels alone, so an output depends on no more than the kernel's reach.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)  # convolve [B, T, C] along T
        return x + self.narrow(F.gelu(self.widen(self.norm(y))))  # type: ignore[no-any-return]


class DownSample(nn.Module):
    """[batch, time, channel] to [batch, time / factor, out]: a convolution of stride = kernel."""

    def __init__(self, channels: int, out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.mix = nn.Linear(channels * factor, out)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, channels = x.shape
        patches = x.reshape(batch, time // self.factor, channels * self.factor)
        return self.mix(patches)  # type: ignore[no-any-return]


class UpSample(nn.Module):
    """[batch, time, channel] to [batch, time * factor, out]: a transposed convolution likewise."""

    def __init__(self, channels: int, out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.mix = nn.Linear(channels, out * factor)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        return self.mix(x).reshape(batch, time * self.factor, -1)  # type: ignore[no-any-return]


class UNetStage(nn.Module):
    """One depth of the U-Net: down-sample, blocks, [deeper stages], join, blocks, up-sample.

    The skip leaves right after down-sampling, so that also the deepest join sees two different
    things: what its blocks were given and what came of it.
    """

    def __init__(self, channels: tuple[int, int], blocks: int, factor: int, kernel: int) -> None:
        super().__init__()
        outer, width = channels
        self.down = DownSample(outer, width, factor)
        self.encode = nn.Sequential(*(ConvNeXtBlock(width, kernel) for _ in range(blocks)))
        self.join = nn.Linear(2 * width, width)
        self.decode = nn.Sequential(*(ConvNeXtBlock(width, kernel) for _ in range(blocks)))
        self.up = UpSample(width, outer, factor)


class WaveformUNet(nn.Module):
    """The log's waveform net (output23 on): clips [batch, sample] to clips of the same shape.

    The number of samples must be a multiple of the product of the factors, `length_multiple`;
    ValueError otherwise. An output sample depends on inputs no more than `reach_samples` away, and
    moving the input by a multiple of `grid_samples` moves the output likewise, but for its edges.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.length_multiple = config.length_multiple
        self.grid_samples = config.length_multiple
        self.reach_samples = _waveform_reach(config)
        self.adds_input = config.output == "difference"
        widths = zip(config.channels, config.channels[1:], strict=False)
        sizes = zip(widths, config.blocks, config.factors, strict=True)
        self.stages = nn.ModuleList(UNetStage(*size, config.kernel_size) for size in sizes)
        if self.adds_input:
            _start_at_zero(self.edges()[1])

    def edges(self) -> tuple[nn.Module, nn.Module]:
        """Return the layers that touch audio: the first and the last."""
        outermost = cast("UNetStage", self.stages[0])
        return outermost.down.mix, outermost.up.mix

    def forward(self, clips: Tensor) -> Tensor:
        samples = clips.shape[-1]
        if samples % self.length_multiple:
            allowed = f"a multiple of {self.length_multiple}, the product of model.factors"
            raise ValueError(f"samples={samples}; must be {allowed}")
        x, skips = clips.unsqueeze(-1), []  # [B, T] -> [B, T, 1]
        stages = cast("list[UNetStage]", list(self.stages))
        for stage in stages:
            x = stage.down(x)
            skips.append(x)
            x = stage.encode(x)
        for stage, skip in zip(reversed(stages), reversed(skips), strict=True):
            x = stage.up(stage.decode(stage.join(torch.cat((x, skip), dim=-1))))
        estimate: Tensor = x.squeeze(-1)
        return clips + estimate if self.adds_input else estimate


class FramesNet(nn.Module):
    """ConvNeXt blocks over STFT frames: clips [batch, sample] to clips of the same shape.

    Reads log-magnitudes as one channel per frequency bin and gives, for each bin and frame, a
    log-gain and a turn of phase. With output `difference` they apply to the input's spectrum and
    start at zero; with `direct` the gain is the magnitude itself. `grid_samples` and
    `reach_samples` are as in WaveformUNet.
    """

    length_multiple = 1
    grid_samples = HOP_SAMPLES

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        blocks_reach = sum(config.blocks) * (config.kernel_size // 2) * HOP_SAMPLES
        self.reach_samples = N_FFT + blocks_reach
        self.changes_input = config.output == "difference"
        bins = N_FFT // 2 + 1
        layers: list[nn.Module] = []
        width = bins
        for channels, blocks in zip(config.channels, config.blocks, strict=True):
            layers += [nn.Linear(width, channels), nn.LayerNorm(channels)]
            layers += [ConvNeXtBlock(channels, config.kernel_size) for _ in range(blocks)]
            width = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 2 * bins)
        if self.changes_input:
            _start_at_zero(self.head)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def edges(self) -> tuple[nn.Module, nn.Module]:
        """Return the layers that touch audio: the first and the last."""
        return self.body[0], self.head

    def forward(self, clips: Tensor) -> Tensor:
        spectrum = torch.stft(clips, N_FFT, HOP_SAMPLES, window=self.window, return_complex=True)
        log_gain, turn = self.decide(spectrum.abs().clamp_min(MAGNITUDE_FLOOR))
        if not self.changes_input:
            spectrum = spectrum / spectrum.abs().clamp_min(MAGNITUDE_FLOOR)
        restored = spectrum * torch.polar(log_gain.exp(), turn)
        return torch.istft(restored, N_FFT, HOP_SAMPLES, window=self.window, length=clips.shape[-1])

    def decide(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-gain and the turn of phase for magnitudes, all [batch, bin, frame]."""
        frames = (magnitude.log().transpose(1, 2) + 3.0) / 3.0  # [B, frame, bin], about unit scale
        change = self.head(self.body(frames)).float().transpose(1, 2)
        log_gain, turn = change.chunk(2, dim=1)
        return LOG_GAIN_LIMIT * torch.tanh(log_gain / LOG_GAIN_LIMIT), turn


def _waveform_reach(config: ModelConfig) -> int:
    """Return how far from an output sample the farthest input is that it depends on.

    All blocks of a stage, on the way down and up, look half a kernel to each side, in steps of the
    stage's stride; both ways a sample stands for its whole patch.
    """
    stride, reach = 1, 0
    for blocks, factor in zip(config.blocks, config.factors, strict=True):
        stride *= factor
        reach += 2 * blocks * (config.kernel_size // 2) * stride
    return reach + stride - 1


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
