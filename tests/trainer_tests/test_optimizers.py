"""The contract of every optimizer on every net. Saved states are in test_optimizer_states.py, what
each does by itself in test_each_optimizer.py."""

import pytest
import torch
from tests_support.optimized_nets import (
    KINDS,
    NAMES,
    SMALL,
    STEPS,
    build,
    matrix_names,
    moved,
    same,
    set_gradients,
    step_with,
    weights_of,
)
from torch.nn.utils import get_total_norm

from trainer.losses.spectral import stft_distance
from trainer.model_config import ModelConfig
from trainer.models import build_model
from trainer.optimizer_config import OptimizerConfig
from trainer.optimizers import build_optimizer
from trainer.schedule import rate_share

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("family", "name"), KINDS)
def test_some_steps_lower_the_loss(family, name):
    torch.manual_seed(0)
    model = build_model(ModelConfig(family=family, kernel_size=3, **SMALL[family]))
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=1e-2), steps=STEPS)
    clips = 0.1 * torch.randn(2, 4096, generator=torch.Generator().manual_seed(1))
    values = []
    for _ in range(10):
        loss = stft_distance(model(clips), clips).mean()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize(("family", "name"), KINDS)
def test_a_step_moves_every_parameter_and_clears_every_gradient(family, name):
    model, optimizer = build(family, name=name, lr=1e-2)
    before = weights_of(model)
    set_gradients(model)
    optimizer.step()
    assert [n for n, change in moved(model, before).items() if not change.any()] == []
    assert all(p.grad is None for p in model.parameters())


def updates_of_a_matrix(steps, **settings):
    model, optimizer = build("frames", **settings)
    name = min(matrix_names("frames", model))
    updates = []
    for seed in range(steps):
        before = weights_of(model)
        set_gradients(model, seed=seed)
        optimizer.step()
        updates.append(moved(model, before)[name])
    return updates


@pytest.mark.parametrize("name", NAMES)
def test_momentum_changes_the_second_step_and_not_the_first(name):
    little, much = (
        updates_of_a_matrix(2, name=name, lr=1e-2, momentum=momentum) for momentum in (0.5, 0.95)
    )
    difference = [
        (a - b).norm().item() / a.norm().item() for a, b in zip(little, much, strict=True)
    ]
    # The first direction is the gradient's, whatever the momentum: but for Muon's bfloat16.
    assert difference[0] < 0.05
    assert difference[1] > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_by_rate_times_decay(name):
    model, optimizer = build("frames", name=name, lr=0.1, weight_decay=0.5)
    plain, plain_optimizer = build("frames", name=name, lr=0.1)
    before = weights_of(model)
    for one, step in ((model, optimizer), (plain, plain_optimizer)):
        set_gradients(one)
        torch.manual_seed(0)  # PSGD draws numbers
        step.step()
    shrunk = {n: w - plain.get_parameter(n).detach() for n, w in weights_of(model).items()}
    matrix = min(matrix_names("frames", model))
    # Float32 rounding of weights below 1.
    torch.testing.assert_close(shrunk[matrix], -0.1 * 0.5 * before[matrix], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_clipping_scales_the_gradient_to_the_limit_and_returns_the_norm_before(name):
    model, optimizer = build("frames", name=name, clip_norm=0.5)
    set_gradients(model)
    gradients = [p.grad for p in model.parameters()]  # clipped in place
    expected = get_total_norm(gradients).item()
    norm = optimizer.step().item()
    assert norm == pytest.approx(expected, rel=1e-6)  # float32
    assert norm > 10
    assert get_total_norm(gradients).item() == pytest.approx(0.5, rel=1e-4)  # norm + 1e-6
    assert optimizer.is_clipped(norm)
    assert not optimizer.is_clipped(0.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clip_norm", [None, 1e3])  # the log's two
def test_a_gradient_below_the_limit_is_left_alone(name, clip_norm):
    model, optimizer = build("frames", name=name, clip_norm=clip_norm)
    set_gradients(model)
    gradients = [p.grad for p in model.parameters()]
    before = [gradient.clone() for gradient in gradients]
    norm = optimizer.step().item()
    assert all(torch.equal(*pair) for pair in zip(gradients, before, strict=True))
    assert not optimizer.is_clipped(norm)


@pytest.mark.parametrize("name", NAMES)
def test_every_part_comes_nearer_to_the_minimum_of_a_quadratic(name):
    every_rate = {"adamw_lr": 5e-3} if name == "muon_adamw" else {}
    model, optimizer = build("waveform", name=name, lr=5e-3, **every_rate)
    generator = torch.Generator().manual_seed(1)
    start = weights_of(model)
    minimum = {n: w + 0.1 * torch.randn(w.shape, generator=generator) for n, w in start.items()}
    for _ in range(25):
        for n, parameter in model.named_parameters():
            parameter.grad = parameter.detach() - minimum[n]
        optimizer.step()
    matrices = matrix_names("waveform", model)
    end = weights_of(model)
    for part in (matrices, end.keys() - matrices):
        before, after = (
            sum((w[n] - minimum[n]).square().sum() for n in part) for w in (start, end)
        )
        assert after < 0.6 * before


@pytest.mark.parametrize("name", NAMES)
def test_zero_gradients_leave_weights_finite_and_all_but_in_place(name):
    model, optimizer = build("frames", name=name, lr=1e-2)
    before = weights_of(model)
    for _ in range(3):
        set_gradients(model, scale=0.0)
        assert optimizer.step().item() == 0.0
    assert same(weights_of(model), before)
    step_with(model, optimizer, range(1))
    assert all(change.any() for change in moved(model, before).values())
    assert all(w.isfinite().all() for w in weights_of(model).values())


@pytest.mark.parametrize("name", NAMES)
def test_the_rates_in_use_are_the_schedule_s_share_of_each(name):
    model, optimizer = build("waveform", name=name, lr=0.02, warmup_steps=2, schedule="cosine")
    _, full = build("waveform", name=name, lr=0.02)
    for step in range(1, STEPS + 1):
        set_gradients(model)
        optimizer.step()
        share = rate_share(step, steps=STEPS, warmup_steps=2, schedule="cosine")
        expected = {part: rate * share for part, rate in full.learning_rates().items()}
        assert optimizer.learning_rates() == expected
    assert set(expected) == ({"lr", "adamw_lr"} if name == "muon_adamw" else {"lr"})


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_as_long_as_its_rate(name):
    model, optimizer = build("waveform", name=name, lr=1e-2, warmup_steps=4)
    plain, plain_optimizer = build("waveform", name=name, lr=1e-2)
    changes = []
    for one, step in ((model, optimizer), (plain, plain_optimizer)):
        before = weights_of(one)
        set_gradients(one)
        torch.manual_seed(0)  # PSGD draws numbers
        step.step()
        changes.append(moved(one, before))
    slow, fast = changes
    for n in slow:
        # Float32 rounding of weights below 1, norms' of 1.
        torch.testing.assert_close(slow[n], fast[n] / 4, rtol=1e-3, atol=2e-7)
