"""The terms `adversarial` and `feature_matching`, and the discriminator that they are taken from.

Kumar et al. 2023 (arXiv:2306.06546), 3.3 and 3.4: DAC's multi-period and complex multi-band
spectrogram discriminators, from its package; least-squares losses, as dac.nn.loss.GANLoss has them.
Published are the weights 1 and 2, against 15 for the mel distance.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.loss_config import CRITIC_TERMS, LossConfig
from trainer.losses.shapes import check_pair

PERIODS = (2, 3, 5, 7, 11)
"""Samples: the multi-period discriminators of DAC's published configuration."""
FFT_SIZES = (2048, 1024, 512)
"""Its spectrogram discriminators."""

_BETAS = (0.8, 0.99)
_CLIP_NORM = 10.0

_Maps = list[list[Tensor]]
"""What each layer of each discriminator makes; the last layer's is its verdict, 1 for real."""


class Critic:
    """DAC's discriminator, frozen to those who ask and trained by `learn` alone."""

    def __init__(
        self,
        config: LossConfig,
        device: torch.device,
        *,
        periods: tuple[int, ...] = PERIODS,
        fft_sizes: tuple[int, ...] = FFT_SIZES,
    ) -> None:
        """Set up a discriminator with random weights, and its AdamW."""
        self.names = tuple(term for term in CRITIC_TERMS if term in config.weights)
        self._clips_at_once = config.clips_at_once
        self.net = _build_discriminator(periods, fft_sizes)
        if next(self.net.parameters()).device.type != device.type:
            # Else left alone: weights without values (rehearsal.py) cannot be moved, not even here.
            self.net.to(device)
        assert config.discriminator_lr is not None
        self._optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.discriminator_lr, betas=_BETAS
        )

    def __call__(self, estimate: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return each term's value of each clip [clip], from [clip, sample] of both.

        Gradients go to the estimate, none to the discriminator.
        """
        check_pair(estimate, target)
        with self._frozen():
            made = self._look(estimate)
            values = {"adversarial": _distance_to_real(made)}
            if "feature_matching" in self.names:
                values["feature_matching"] = _distance_of_maps(made, self._look(target.detach()))
        return {term: values[term] for term in self.names}

    def learn(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Teach the discriminator to tell estimates from targets, by one step; return its loss.

        The batch is looked at a few clips at a time; the gradient is that of all of it.
        """
        check_pair(estimate, target)
        self._optimizer.zero_grad()
        total = torch.zeros((), device=target.device)
        pairs = zip(
            torch.split(estimate.detach(), self._clips_at_once),
            torch.split(target.detach(), self._clips_at_once),
            strict=True,
        )
        for made, aim in pairs:
            loss = self._loss(made, aim).sum() / len(target)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.net.parameters(), _CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total

    def state_dict(self) -> dict[str, Any]:
        """Return the discriminator and its optimizer: tensors in plain containers."""
        return {"net": self.net.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _loss(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return the discriminator's own loss of each clip, [clip]."""
        values = [maps[-1].square().flatten(1).mean(1) for maps in self._look(estimate)]
        return torch.stack(values).sum(0) + _distance_to_real(self._look(target))

    def _look(self, clips: Tensor) -> _Maps:
        maps: _Maps = self.net(clips[:, None])  # [B, T] -> [B, 1, T]
        return maps

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        self.net.requires_grad_(False)
        try:
            yield
        finally:
            self.net.requires_grad_(True)


def _build_discriminator(periods: tuple[int, ...], fft_sizes: tuple[int, ...]) -> nn.Module:
    with warnings.catch_warnings():  # of importing audiotools, and of its old weight norm
        warnings.simplefilter("ignore")
        from dac.model.discriminator import Discriminator

        net: nn.Module = Discriminator(rates=[], periods=[*periods], fft_sizes=[*fft_sizes])
    return net


def _distance_to_real(maps: _Maps) -> Tensor:
    verdicts = [(1 - layers[-1]).square().flatten(1).mean(1) for layers in maps]
    return torch.stack(verdicts).sum(0)


def _distance_of_maps(made: _Maps, aim: _Maps) -> Tensor:
    """Return the sum over all layers but verdicts of the mean absolute difference, [clip]."""
    pairs = (
        pair
        for ours, theirs in zip(made, aim, strict=True)
        for pair in zip(ours[:-1], theirs[:-1], strict=True)
    )
    return torch.stack([(one - other).abs().flatten(1).mean(1) for one, other in pairs]).sum(0)
