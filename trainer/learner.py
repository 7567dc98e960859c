"""A net with its optimizer and its loss, and one step of all: for training and its estimates."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.compilation import compile_net
from trainer.config import TrainConfig
from trainer.damage import damage_clips, low_pass_targets
from trainer.losses.mix import Loss, LossMix
from trainer.net import Net
from trainer.optimizers import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What the net made of a batch, with what its way back needs, and the loss of that."""

    estimate: Tensor
    """[clip, sample]."""
    loss: Loss


class Learner:
    """A net, on the device where it is, the optimizer of its weights, and their loss."""

    def __init__(self, net: Net, config: TrainConfig, *, with_weights: bool = True) -> None:
        """Set up training; `with_weights=False` leaves foreign nets of the loss without theirs."""
        self.net = net
        self.optimizer = build_optimizer(net, config.optimizer, steps=config.steps)
        device = next(net.parameters()).device
        self.mix = LossMix(config.loss, device, with_weights=with_weights)
        cache = Path(config.data.cache)
        self._forward = compile_net(net, cache=cache) if config.compile else net
        self._precision = config.precision

    def try_out(self, clean: Tensor, semitones: Tensor) -> Pass:
        """Damage clean clips [batch, sample], each by its semitones [batch], restore and judge."""
        with torch.no_grad():
            damaged = damage_clips(clean, semitones)
            target = low_pass_targets(clean, semitones)
        return self.judge(damaged, target)

    def judge(self, damaged: Tensor, target: Tensor) -> Pass:
        """Restore damaged clips, and measure the loss against targets, both [batch, sample]."""
        estimate = self.restore(damaged)
        return Pass(estimate=estimate, loss=self.mix.measure(estimate.detach(), target))

    def descend(self, tried: Pass) -> Tensor:
        """Move the weights down the gradient of a loss; return its norm before clipping."""
        tried.estimate.backward(tried.loss.gradient)  # type: ignore[no-untyped-call]
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
