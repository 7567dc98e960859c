import copy
import io
import itertools
import re
import typing

import numpy as np
import pytest
import torch
from tests_support import reference
from torch.nn.utils import get_total_norm

from trainer.losses.spectral import stft_distance
from trainer.model_config import ModelConfig
from trainer.models import build_model
from trainer.muon import Muon
from trainer.optimizer_config import OptimizerConfig
from trainer.optimizers import build_optimizer, split_parameters
from trainer.schedule import rate_share

NAMES = typing.get_args(typing.get_type_hints(OptimizerConfig)["name"])
FAMILIES = typing.get_args(typing.get_type_hints(ModelConfig)["family"])
STEPS = 20
KINDS = list(itertools.product(FAMILIES, NAMES))
pytestmark = pytest.mark.usefixtures("one_thread")

U_NET = {"channels": (1, 4, 8), "blocks": (1, 1), "factors": (4, 2)}
SMALL = {
    "waveform": U_NET,
    "spectrogram": U_NET,
    "frames": {"channels": (16, 8), "blocks": (1, 1), "factors": ()},
}
BLOCK = r"(encode|decode)\.\d+"
BETWEEN_EDGES_OF_A_U_NET = (
    rf"stages\.\d+\.({BLOCK}\.(widen|narrow)|join)\.weight|stages\.[1-9]\.(down|up)\.mix\.weight"
)
MATRICES = {  # by the names of design.md's words: what mixes channels between the edges
    "waveform": BETWEEN_EDGES_OF_A_U_NET,
    "spectrogram": BETWEEN_EDGES_OF_A_U_NET,
    "frames": r"body\.\d+\.(widen|narrow)\.weight|body\.[1-9]\d*\.weight",
}


def build(family, **settings):
    torch.manual_seed(0)
    model = build_model(ModelConfig(family=family, kernel_size=3, **SMALL[family]))
    return model, build_optimizer(model, OptimizerConfig(**settings), steps=STEPS)


def set_gradients(model, *, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(model, before):
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def matrix_names(family, model):
    """Names of the 2-D weights between the edges; norms' vectors in `body` do not match by rank."""
    named = model.named_parameters()
    return {n for n, p in named if p.ndim == 2 and re.fullmatch(MATRICES[family], n)}


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_gets_exactly_the_matrices_between_the_edges(family):
    model, _ = build(family)
    matrices, others = split_parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in matrices} == matrix_names(family, model)
    assert len(matrices) >= 5
    chosen = [id(p) for p in (*matrices, *others)]
    assert sorted(chosen) == sorted(names)  # each in one, and in one only
    depthwise_norms_and_biases = [p for p in model.parameters() if p.ndim != 2]
    edges = [layer.weight for layer in model.edges()]
    assert {id(p) for p in others} == {id(p) for p in (*depthwise_norms_and_biases, *edges)}


# The contract of every optimizer on every net.


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
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_state(name, bad, clip_norm):
    model, optimizer = build("frames", name=name, clip_norm=clip_norm)
    set_gradients(model)
    optimizer.step()
    weights, state = weights_of(model), copy.deepcopy(optimizer.state_dict())
    set_gradients(model, seed=1)
    model.head.bias.grad[3] = bad
    assert not optimizer.step().isfinite()
    assert same(weights_of(model), weights)
    assert flat(optimizer.state_dict()) == flat(state)


def flat(state):
    """Return a state with its tensors as lists, so that it can be compared."""
    if isinstance(state, dict):
        return {key: flat(value) for key, value in state.items()}
    if isinstance(state, list):
        return [flat(value) for value in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state


SCHEDULED = {"lr": 1e-2, "clip_norm": 1.0, "warmup_steps": 4, "schedule": "cosine"}


def step_with(model, optimizer, seeds):
    for seed in seeds:
        set_gradients(model, seed=seed)
        optimizer.step()


@pytest.mark.parametrize(("family", "name"), KINDS)
def test_a_saved_state_goes_on_to_the_last_bit(family, name):
    model, optimizer = build(family, name=name, **SCHEDULED)
    step_with(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()), file)
    step_with(model, optimizer, range(3, 6))
    other, other_optimizer = build(family, name=name, **SCHEDULED)
    file.seek(0)
    weights, state, rng = torch.load(file, weights_only=True)
    other.load_state_dict(weights)
    other_optimizer.load_state_dict(state)
    torch.set_rng_state(rng)  # as training's checkpoint does
    step_with(other, other_optimizer, range(3, 6))
    assert same(weights_of(model), weights_of(other))
    assert other_optimizer.learning_rates() == optimizer.learning_rates()
    assert flat(other_optimizer.state_dict()) == flat(optimizer.state_dict())


def leaves(state):
    """Yield what a state holds, keys included, down from dicts, lists and tuples."""
    if isinstance(state, dict):
        yield from state
    if isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from leaves(part)
    else:
        yield state


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_tensors_numbers_strings_and_nothing_else(name):
    model, optimizer = build("frames", name=name)
    step_with(model, optimizer, range(1))
    found = {type(leaf) for leaf in leaves(optimizer.state_dict())}
    assert found <= {torch.Tensor, int, float, str, bool, type(None)}


@pytest.mark.parametrize(("saved", "name"), list(itertools.permutations(NAMES, 2)))
def test_the_state_of_another_optimizer_is_refused(saved, name):
    state = build("frames", name=saved)[1].state_dict()
    _, optimizer = build("frames", name=name)
    with pytest.raises(ValueError, match=f"^optimizer.name={name}; must be {saved}, as in the ch"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_another_net_is_refused(name):
    model, optimizer = build("waveform", name=name)
    step_with(model, optimizer, range(1))
    with pytest.raises(ValueError, match=f"^optimizer state in the checkpoint={name}; must be of"):
        build("frames", name=name)[1].load_state_dict(optimizer.state_dict())


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


# Each optimizer by itself.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_muon_and_adamw_is_that_of_each(family):
    settings = {"lr": 0.02, "adamw_lr": 0.003, "momentum": 0.9, "weight_decay": 0.1}
    model, optimizer = build(family, **settings)
    by_hand, _ = build(family, **settings)
    names = matrix_names(family, by_hand)
    matrices = [p for n, p in by_hand.named_parameters() if n in names]
    others = [p for n, p in by_hand.named_parameters() if n not in names]
    muon = Muon(matrices, lr=0.02, momentum=0.9, weight_decay=0.1)
    adamw = torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.1)
    for seed in range(2):
        set_gradients(model, seed=seed)
        set_gradients(by_hand, seed=seed)
        optimizer.step()
        muon.step()
        adamw.step()
    assert same(weights_of(model), weights_of(by_hand))


def test_muon_s_update_is_the_orthogonal_matrix_nearest_to_the_gradient():
    model, optimizer = build("waveform", lr=0.1)
    before = weights_of(model)
    set_gradients(model)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    optimizer.step()
    change = moved(model, before)
    for name in matrix_names("waveform", model):
        rows, columns = gradients[name].shape
        scale = -0.1 * max(1.0, rows / columns) ** 0.5
        update = change[name].double().numpy() / scale
        nearest = reference.nearest_orthogonal(gradients[name])
        # Newton and Schulz's five steps leave singular values between 0.68 and 1.13.
        assert np.linalg.norm(update - nearest, 2) < 0.4
        alike = np.sum(update * nearest) / np.linalg.norm(update) / np.linalg.norm(nearest)
        assert alike > 0.95


def test_muon_s_matrices_and_all_else_learn_at_two_rates():
    model, optimizer = build("frames", lr=0.02, adamw_lr=0.003)
    assert optimizer.learning_rates() == {"lr": 0.02, "adamw_lr": 0.003}
    before = weights_of(model)
    set_gradients(model)
    optimizer.step()
    change, names = moved(model, before), matrix_names("frames", model)
    for name in change.keys() - names:
        # Adam's first step is the rate itself, whatever the gradient. float32, and eps of 1e-8.
        size = change[name].abs()
        torch.testing.assert_close(size, torch.full_like(size, 0.003), rtol=0, atol=1e-5)
    for name in names:
        rows, columns = change[name].shape
        # Muon's has singular values near the rate, times the root of rows over columns.
        norm = 0.02 * max(1.0, rows / columns) ** 0.5 * min(rows, columns) ** 0.5
        assert change[name].norm().item() == pytest.approx(norm, rel=0.25)


def test_adamw_moves_all_by_its_one_rate():
    model, optimizer = build("frames", name="adamw", lr=0.02, momentum=0.8)
    assert optimizer.learning_rates() == {"lr": 0.02}
    before = weights_of(model)
    set_gradients(model)
    optimizer.step()
    for change in moved(model, before).values():
        torch.testing.assert_close(change.abs(), torch.full_like(change, 0.02), rtol=0, atol=1e-5)


def test_adamw_is_torch_s_with_momentum_as_beta1():
    model, optimizer = build("frames", name="adamw", lr=0.02, momentum=0.8)
    by_hand, _ = build("frames", name="adamw")
    adamw = torch.optim.AdamW(by_hand.parameters(), lr=0.02, betas=(0.8, 0.999), weight_decay=0.0)
    for seed in range(2):
        set_gradients(model, seed=seed)
        set_gradients(by_hand, seed=seed)
        optimizer.step()
        adamw.step()
    assert same(weights_of(model), weights_of(by_hand))
