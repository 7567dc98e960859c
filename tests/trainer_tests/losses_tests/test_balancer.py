import io

import pytest
import torch

from trainer.losses.balancer import GradientBalancer

DECAY = 0.999  # EnCodec's own default


def norms(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


def test_at_first_each_gradient_is_brought_to_its_share():
    scales = GradientBalancer({"stft": 3.0, "dac": 1.0}).scales(norms(stft=50.0, dac=0.5))
    assert scales["stft"].item() == pytest.approx(0.75 / 50)
    assert scales["dac"].item() == pytest.approx(0.25 / 0.5)


def test_later_a_norm_is_the_running_mean_of_the_paper():
    balancer = GradientBalancer({"stft": 1.0})
    for norm in (2.0, 6.0, 4.0):
        scale = balancer.scales(norms(stft=norm))["stft"].item()
    # Equation 9's exponential mean, each weight divided by the sum of the weights so far.
    mean = (4 + DECAY * 6 + DECAY**2 * 2) / (1 + DECAY + DECAY**2)
    assert scale == pytest.approx(1 / mean)


def test_a_term_of_weight_zero_has_no_share():
    scales = GradientBalancer({"stft": 2.0, "mel": 0.0}).scales(norms(stft=4.0))
    assert scales.keys() == {"stft"}
    assert scales["stft"].item() == pytest.approx(1 / 4)


def test_a_gradient_of_nothing_stays_finite():
    assert torch.isfinite(GradientBalancer({"stft": 1.0}).scales(norms(stft=0.0))["stft"])


def test_it_goes_on_from_its_saved_state_to_the_last_bit():
    through, resumed = GradientBalancer({"l1": 1.0}), GradientBalancer({"l1": 1.0})
    for norm in (0.3, 0.7):
        through.scales(norms(l1=norm))
    file = io.BytesIO()
    torch.save(through.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True), torch.device("cpu"))
    assert resumed.scales(norms(l1=0.1)) == through.scales(norms(l1=0.1))
