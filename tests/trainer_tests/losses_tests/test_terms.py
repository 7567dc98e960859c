"""The contract of every term of the loss, found by listing; foreign nets have random weights.

What each term measures is tested beside the file that it lies in.
"""

import re

import pytest
import torch
from tests_support.saved_bytes import SavedBytes
from tests_support.signals import noise
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.loss_config import CRITIC_TERMS, TERMS, LossConfig
from trainer.losses.critic import Critic
from trainer.losses.terms import build_terms, foreign_parameters

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 1200
CPU = torch.device("cpu")
CONFIG = LossConfig(**dict.fromkeys(TERMS, 1.0), dac_blocks=4, encodec_blocks=4, clips_at_once=2)

NOT_OF_TARGET = {"adversarial"}
"""Terms that look at the estimate alone: equal clips have no place of their own."""
RELATIVE = {"stft", "dac", "encodec"}
"""Terms that are relative to the target, so that their arguments cannot change places."""
SYMMETRIC = {"mel", "l1", "cdpam", "feature_matching"}
DISTANCES = [term for term in TERMS if term not in NOT_OF_TARGET]


@pytest.fixture(scope="module")
def groups():
    torch.manual_seed(0)
    return build_terms(CONFIG, CPU, with_weights=False)


@pytest.fixture
def measure(groups):
    """Return a function that gives a term's values [clip]."""
    named = {name: group for group in groups for name in group.names}
    return lambda name, estimate, target: named[name](estimate, target)[name]


def gradient(value, estimate):
    return torch.autograd.grad(value, estimate)[0]


def test_the_terms_come_in_the_order_of_their_listing(groups):
    names = [name for group in groups for name in group.names]
    assert names == list(TERMS)
    clips = noise(1, SAMPLES)
    assert names == [name for group in groups for name in group(clips, clips)]


def test_every_term_is_symmetric_relative_or_of_the_estimate_alone():
    assert sorted([*NOT_OF_TARGET, *RELATIVE, *SYMMETRIC]) == sorted(TERMS)


def test_only_terms_with_a_weight_are_built_zero_included():
    config = LossConfig(stft=None, mel=0.0, feature_matching=1.0)
    built = build_terms(config, CPU, with_weights=False)
    assert [group.names for group in built] == [("mel",), ("feature_matching",)]
    assert list(built[1](noise(1, SAMPLES), noise(1, SAMPLES))) == ["feature_matching"]


@pytest.mark.parametrize("name", DISTANCES)
def test_a_term_is_zero_for_equal_clips_and_positive_otherwise(name, measure):
    clips = noise(2, SAMPLES)
    assert measure(name, clips, clips).tolist() == [0.0, 0.0]
    assert (measure(name, clips + noise(2, SAMPLES, 0.01, seed=1), clips) > 0).all()


def test_the_adversarial_term_looks_at_the_estimate_alone(measure):
    estimate = noise(2, SAMPLES)
    values = [measure("adversarial", estimate, noise(2, SAMPLES, seed=seed)) for seed in (1, 2)]
    assert values[0].tolist() == values[1].tolist()
    assert (values[0] > 0).all()


@pytest.mark.parametrize("name", TERMS)
def test_there_is_one_value_a_clip_and_it_is_that_of_the_clip_alone(name, measure):
    estimate, target = noise(3, SAMPLES), noise(3, SAMPLES, seed=1)
    together = measure(name, estimate, target)
    assert together.shape == (3,)
    assert len(set(together.tolist())) == 3
    alone = torch.cat([measure(name, estimate[i : i + 1], target[i : i + 1]) for i in range(3)])
    # Sums over a batch may be taken in another order.
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_silence_and_equal_clips_have_finite_values_and_gradients(name, measure):
    sound = noise(1, SAMPLES)
    silence = torch.zeros_like(sound)
    estimate = torch.cat([silence, sound, silence, sound]).requires_grad_()
    value = measure(name, estimate, torch.cat([silence, silence, sound, sound]))
    assert value.isfinite().all()
    assert gradient(value.sum(), estimate).isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_a_term_pulls_the_estimate_and_never_the_target(name, measure):
    estimate, target = noise(2, SAMPLES).requires_grad_(), noise(2, SAMPLES, seed=1)
    of_estimate = gradient(measure(name, estimate, target).sum(), estimate)
    assert of_estimate.isfinite().all()
    assert (of_estimate.norm(dim=1) > 0).all()


@pytest.mark.parametrize("name", sorted(RELATIVE))
def test_the_arguments_of_a_relative_term_cannot_change_places(name, measure):
    quiet, loud = noise(1, SAMPLES, level=0.03), noise(1, SAMPLES, level=0.3, seed=1)
    there, back = (measure(name, *pair).item() for pair in ((quiet, loud), (loud, quiet)))
    assert abs(there - back) > 0.02 * there


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
def test_the_arguments_of_a_symmetric_term_can_change_places(name, measure):
    one, other = noise(2, SAMPLES), noise(2, SAMPLES, level=0.3, seed=1)
    # The same differences, with the other sign.
    torch.testing.assert_close(
        measure(name, one, other), measure(name, other, one), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize(
    ("made", "aim"),
    [((2, SAMPLES), (2, SAMPLES - 1)), ((1, SAMPLES), (2, SAMPLES)), ((2, 1, 64), (2, 1, 64))],
)
def test_other_shapes_are_refused(name, made, aim, measure):
    shapes = f"{list(made)} and {list(aim)}"
    expected = f"estimate and target={shapes}; must be one shape [batch, sample]"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        measure(name, torch.zeros(made), torch.zeros(aim))


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_of_a_few_clips_at_a_time_is_that_of_all(name, measure):
    estimate, target = noise(4, SAMPLES).requires_grad_(), noise(4, SAMPLES, seed=1)
    whole = gradient(measure(name, estimate, target).mean(), estimate)
    leaf = estimate.detach().requires_grad_()
    for some in torch.arange(4).split(CONFIG.clips_at_once):
        (measure(name, leaf[some], target[some]).sum() / 4).backward()
    assert (leaf.grad - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("name", TERMS)
def test_only_the_estimate_gets_a_gradient(name, measure, groups):
    estimate = noise(1, SAMPLES).requires_grad_()
    measure(name, estimate, noise(1, SAMPLES, seed=1)).sum().backward()
    assert estimate.grad.isfinite().all()
    critic = next(group for group in groups if isinstance(group, Critic))
    assert all(parameter.grad is None for parameter in critic.net.parameters())


def test_the_nets_of_terms_are_counted(groups):
    # By hand: 16 convolutions of 15 taps, 64 to 1024 channels, and four linear layers. DAC's and
    # the discriminator's are those of test_dac.py and test_critic.py.
    counts = foreign_parameters(groups)
    assert list(counts) == ["cdpam", "dac", "encodec", "discriminator"]
    widths = [1, *[64] * 3, *[128] * 4, *[256] * 4, *[512] * 4, 1024]
    layers = sum(15 * a * b + b for a, b in zip(widths, widths[1:], strict=False))
    linears = sum((a + 2) * b for a, b in ((512, 256), (256, 64), (64, 16), (16, 4)))
    assert counts["cdpam"] == layers + linears


# Terms without values: training's memory is told before anything is fetched (rehearsal.py).


@pytest.fixture(scope="module")
def fake():
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture(scope="module")
def fake_groups(fake):
    with fake, CPU:
        return build_terms(CONFIG, CPU, with_weights=False)


def saved_and_gradient(group, estimate, target):
    net = getattr(group, "net", None) or getattr(group, "distance", None)
    weights = [*net.parameters()] if isinstance(net, torch.nn.Module) else []
    with SavedBytes(weights).counting() as saved:
        values = group(estimate, target)
    return saved.total, gradient(sum(value.sum() for value in values.values()), estimate)


@pytest.mark.parametrize("number", range(len(TERMS) - len(CRITIC_TERMS) + 1))
def test_a_term_goes_through_without_values_and_saves_as_much(number, groups, fake, fake_groups):
    with fake:
        estimate, target = torch.empty(2, SAMPLES).requires_grad_(), torch.empty(2, SAMPLES)
    saved, of_estimate = saved_and_gradient(fake_groups[number], estimate, target)
    assert of_estimate.shape == (2, SAMPLES)
    real = noise(2, SAMPLES).requires_grad_()
    # After the fake one: nothing without values may be kept for the real one.
    expected, of_real = saved_and_gradient(groups[number], real, noise(2, SAMPLES, seed=1))
    assert of_real.isfinite().all()
    assert saved == pytest.approx(expected, rel=0.01)


def test_a_critic_without_values_learns(fake):
    with fake, CPU:
        critic = Critic(CONFIG, CPU, periods=(2,), fft_sizes=(512,))
        clips = torch.empty(3, SAMPLES)
    assert critic.learn(clips, clips).shape == ()
