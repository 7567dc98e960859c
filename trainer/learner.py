"""A net with its optimizer, and one step of both: the same for training and for its estimates."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.damage import damage_clips, low_pass_targets
from trainer.losses.spectral import stft_distance
from trainer.models import FramesNet, WaveformUNet
from trainer.optimizers import build_optimizer


class Learner:
    """A net, on the device where it is, and the optimizer of its weights."""

    def __init__(self, net: WaveformUNet | FramesNet, config: TrainConfig) -> None:
        self.net = net
        self.optimizer = build_optimizer(net, config.optimizer)
        self._forward = torch.compile(net) if config.compile else net
        self._precision = config.precision

    def loss(self, clean: Tensor, semitones: Tensor) -> Tensor:
        """Return the loss, one number, on clean clips [batch, sample], each to be shifted by its
        semitones [batch]."""
        with torch.no_grad():
            damaged = damage_clips(clean, semitones)
            target = low_pass_targets(clean, semitones)
        return stft_distance(self.restore(damaged), target).mean()

    def descend(self, loss: Tensor) -> Tensor:
        """Move the weights down the gradient of a loss; return its norm before clipping."""
        loss.backward()  # type: ignore[no-untyped-call]
        return self.optimizer.step()

    def restore(self, damaged: Tensor) -> Tensor:
        """Return what the net makes of damaged clips; only the net itself is ever in bfloat16."""
        with self._autocast(damaged.device.type):
            estimate: Tensor = self._forward(damaged)
        return estimate.float()

    def _autocast(self, device_type: str) -> AbstractContextManager[object]:
        if self._precision == "bf16":
            return torch.autocast(device_type, dtype=torch.bfloat16)
        return nullcontext()
