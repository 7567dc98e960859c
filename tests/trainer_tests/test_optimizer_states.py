"""What an optimizer saves, goes on from, leaves alone and refuses."""

import copy
import io
import itertools

import pytest
import torch
from tests_support.optimized_nets import (
    KINDS,
    NAMES,
    build,
    same,
    set_gradients,
    step_with,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
