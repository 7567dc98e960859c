"""DAC's discriminator as two terms, and its own training; most on the smallest of its kind."""

import copy
import io
import warnings

import pytest
import torch
from tests_support.signals import noise
from torch import nn

from trainer.loss_config import LossConfig
from trainer.losses.critic import Critic

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 1200
CPU = torch.device("cpu")


CONFIG = LossConfig(adversarial=1.0, feature_matching=2.0, clips_at_once=2)


def build(seed=0):
    torch.manual_seed(seed)
    return Critic(CONFIG, CPU, periods=(), fft_sizes=(512,))


@pytest.fixture
def pair():
    return noise(3, SAMPLES), noise(3, SAMPLES, seed=1)


def published(critic):
    """Return DAC's own loss around this discriminator, and what makes its kind of signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from audiotools import AudioSignal
        from dac.nn.loss import GANLoss
    return GANLoss(critic.net), lambda clips: AudioSignal(clips[:, None], 44_100)


def test_the_terms_are_dac_s(pair):
    critic = Critic(CONFIG, CPU)
    loss, signal = published(critic)
    adversarial, matching = loss.generator_loss(*map(signal, pair))
    values = {name: value.mean().item() for name, value in critic(*pair).items()}
    # Means over clips of means over each clip: float32 in another order.
    assert values == pytest.approx(
        {"adversarial": adversarial.item(), "feature_matching": matching.item()}, rel=1e-5
    )


def test_a_step_is_that_of_dac_s_loss_on_the_whole_batch(pair):
    critic, reference = build(), build().net
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-4, betas=(0.8, 0.99))
    loss, signal = published(critic)
    loss.discriminator = reference
    expected = loss.discriminator_loss(*map(signal, pair))
    expected.backward()
    gradients = [parameter.grad.clone() for parameter in reference.parameters()]
    nn.utils.clip_grad_norm_(reference.parameters(), 10.0)
    optimizer.step()
    found = critic.learn(*pair)  # two clips, then one
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs, gradient in zip(
        critic.net.parameters(), reference.parameters(), gradients, strict=True
    ):
        sure = gradient.abs() > 1e-3 * gradient.abs().max()  # Adam's first step is the sign alone
        torch.testing.assert_close(ours[sure], theirs[sure], rtol=0, atol=2e-6)  # of steps of 1e-4


def test_it_learns_to_tell_estimates_from_targets(pair):
    critic = build()
    losses = [critic.learn(*pair).item() for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


def test_it_goes_on_from_a_saved_state_to_the_last_bit(pair):
    critic = build()
    critic.learn(*pair)
    saved = io.BytesIO()
    torch.save(critic.state_dict(), saved)
    saved.seek(0)
    resumed = build(seed=1)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    losses = [[each.learn(*pair).item() for _ in range(2)] for each in (critic, resumed)]
    assert losses[0] == losses[1]


def test_asking_leaves_the_discriminator_as_it_was(pair):
    critic = build()
    before = copy.deepcopy(critic.net.state_dict())
    estimate = pair[0].requires_grad_()
    sum(value.sum() for value in critic(estimate, pair[1]).values()).backward()
    assert all(parameter.grad is None for parameter in critic.net.parameters())
    assert all(parameter.requires_grad for parameter in critic.net.parameters())
    assert all(torch.equal(before[k], v) for k, v in critic.net.state_dict().items())
