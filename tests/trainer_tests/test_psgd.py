import contextlib
import io
import re
import sys
from pathlib import Path

import heavyball
import heavyball.utils
import pytest
import torch
from torch import nn

from trainer import psgd
from trainer.config import TrainConfig
from trainer.models import build_model
from trainer.optimizer_config import OptimizerConfig
from trainer.optimizers import build_optimizer
from trainer.psgd import PSGD
from trainer.rehearsal import Rehearsal

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.01}
LAST_FULL_STEP = 1000
"""heavyball's schedule updates the preconditioner at each step up to this one, then at fewer."""


def weights(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def build(*shapes, probability=None):
    torch.manual_seed(0)
    parameters = weights(*shapes)
    return parameters, PSGD(parameters, **SETTINGS, preconditioner_probability=probability)


def set_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def step_with(parameters, optimizer, seeds):
    for seed in seeds:
        set_gradients(parameters, seed)
        optimizer.step()


def factors(optimizer, number=0):
    """Return copies of the preconditioner's factors of a weight."""
    state = optimizer.state_dict()["weights"][number]
    key = next(key for key in state if "_Q_" in key and "cache" not in key)
    return [factor.clone() for factor in state[key]]


def same(ones, others):
    return all(torch.equal(*pair) for pair in zip(ones, others, strict=True))


SHAPES = [(), (1,), (5,), (4, 1), (6, 4), (6, 1, 3), (6, 1, 3, 3), (6, 4)]


def test_a_step_is_heavyball_s_own_to_the_last_bit():
    mine, optimizer = build(*SHAPES)
    theirs = weights(*SHAPES)
    own = heavyball.PSGDKron(
        theirs, lr=SETTINGS["lr"], betas=(0.9, 0.999), weight_decay=SETTINGS["weight_decay"]
    )
    torch.manual_seed(1)
    step_with(mine, optimizer, range(4))
    torch.manual_seed(1)
    with uncompiled():
        step_with(theirs, own, range(4))
    assert same(mine, theirs)
    assert not any(same([w], [start]) for w, start in zip(mine, weights(*SHAPES), strict=True))


@contextlib.contextmanager
def uncompiled():
    before = heavyball.utils.compile_mode
    heavyball.utils.compile_mode = None
    yield
    heavyball.utils.compile_mode = before


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((5,), [(1, 5)]),
        ((6, 4), [(1, 6, 6), (1, 4, 4)]),
        ((6, 1, 3), [(1, 6, 6), (1, 3, 3)]),  # a depthwise kernel
        ((6, 1, 3, 5), [(1, 6, 6), (1, 3, 3), (1, 5, 5)]),  # in two dimensions
        ((2048, 2), [(1, 2048, 2048), (1, 2, 2)]),
        ((2049, 2), [(1, 2049), (1, 2, 2)]),  # only a diagonal from there on
    ],
)
def test_each_dimension_has_a_factor_of_its_own(shape, sizes):
    parameters, optimizer = build(shape)
    step_with(parameters, optimizer, range(1))
    assert [tuple(factor.shape) for factor in factors(optimizer)] == sizes


@pytest.mark.parametrize("probability", [None, 0.3])
def test_goes_on_to_the_last_bit_where_updates_of_the_preconditioner_become_fewer(probability):
    parameters, optimizer = build((6, 4), (5,), probability=probability)
    step_with(parameters, optimizer, range(2))
    state = optimizer.state_dict()
    state["updates"] = {"cumulative_prob": 998.0, "cumulative_prob_prob_step": 998}
    optimizer.load_state_dict(state | {"steps": 998})
    step_with(parameters, optimizer, range(3))  # up to the first that may leave it alone
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), parameters, torch.get_rng_state()), file)
    step_with(parameters, optimizer, range(3, 10))
    others, other = build((6, 4), (5,), probability=probability)
    file.seek(0)
    state, values, rng = torch.load(file, weights_only=True)
    for one, value in zip(others, values, strict=True):
        one.data.copy_(value)
    other.load_state_dict(state)
    torch.set_rng_state(rng)
    step_with(others, other, range(3, 10))
    assert same(parameters, others)
    assert same(factors(optimizer), factors(other))


def changes_of_the_preconditioner(optimizer, parameters, steps):
    changed = []
    for seed in range(steps):
        before = factors(optimizer)
        step_with(parameters, optimizer, [seed])
        changed.append(not same(before, factors(optimizer)))
    return changed


def test_a_probability_of_a_quarter_updates_the_preconditioner_in_every_fourth_step():
    parameters, optimizer = build((6, 4), probability=0.25)
    step_with(parameters, optimizer, range(1))
    every_fourth = [step % 4 == 0 for step in range(2, 10)]
    assert changes_of_the_preconditioner(optimizer, parameters, 8) == every_fourth


def test_unless_given_the_preconditioner_is_updated_at_each_of_the_first_thousand_steps():
    parameters, optimizer = build((6, 4))
    step_with(parameters, optimizer, range(1))
    counts = {"cumulative_prob": 998.0, "cumulative_prob_prob_step": 998}
    optimizer.load_state_dict(optimizer.state_dict() | {"updates": counts})
    # 999 and 1000; 1001 adds 0.999, which is not yet a whole update more; 1002 makes it one.
    changed = changes_of_the_preconditioner(optimizer, parameters, 4)
    assert changed == [True, True, False, True]
    assert optimizer.state_dict()["updates"]["cumulative_prob_prob_step"] == LAST_FULL_STEP + 2


def test_a_saved_state_keeps_every_precision():
    parameters, optimizer = build((6, 4))
    step_with(parameters, optimizer, range(2))
    saved = optimizer.state_dict()["weights"][0]
    _, other = build((6, 4))
    other.load_state_dict(optimizer.state_dict())
    loaded = other.state_dict()["weights"][0]
    bounds = next(key for key in saved if "lower_bound" in key)
    assert [bound.dtype for bound in loaded[bounds]] == [torch.float64] * 2
    assert same(loaded[bounds], saved[bounds])


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_a_weight_rests_until_it_has_a_gradient(size):
    parameters, optimizer = build((6, 4), (5,))
    before = [w.detach().clone() for w in parameters]
    set_gradients(parameters, 0)
    parameters[0].grad = torch.full((6, 4), size)
    optimizer.step()
    assert torch.equal(parameters[0], before[0])
    assert not torch.equal(parameters[1], before[1])
    step_with(parameters, optimizer, [1])
    assert not torch.equal(parameters[0], before[0])
    assert all(w.isfinite().all() for w in parameters)


def test_a_gradient_that_vanishes_later_does_no_harm():
    parameters, optimizer = build((6, 4), (5,))
    step_with(parameters, optimizer, range(1))
    for _ in range(20):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    step_with(parameters, optimizer, range(1))
    assert all(w.isfinite().all() for w in parameters)


def test_heavyball_s_setting_for_the_whole_process_is_as_it_was():
    before = heavyball.utils.compile_mode
    parameters, optimizer = build((6, 4))
    step_with(parameters, optimizer, range(1))
    assert heavyball.utils.compile_mode == before == "max-autotune-no-cudagraphs"
    set_gradients(parameters, 0)
    parameters[0].grad[0] = float("nan")
    optimizer.state.clear()  # as if this were its first gradient, which heavyball looks at
    with pytest.raises(ValueError, match="not finite"):
        optimizer.step()
    assert heavyball.utils.compile_mode == before


def test_without_the_package_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "heavyball", None)
    monkeypatch.delitem(sys.modules, "trainer.psgd")
    net = build_model(TrainConfig().model)
    with pytest.raises(ValueError, match=r"^optimizer.name=psgd; must be .* the package heavyball"):
        build_optimizer(net, OptimizerConfig(name="psgd"), steps=1)


def test_nothing_imports_the_package_before_it_is_asked_for():
    import_now = re.compile(r"^(import|from) (heavyball|trainer\.psgd)", re.MULTILINE)
    files = Path(psgd.__file__).parent.rglob("*.py")
    assert [path.name for path in files if import_now.search(path.read_text())] == ["psgd.py"]


def sizes(state):
    """Return the shape and type of each tensor of a state, by its path."""
    if isinstance(state, torch.Tensor):
        return tuple(state.shape), state.dtype
    if isinstance(state, dict):
        return {key: sizes(part) for key, part in state.items()}
    return [sizes(part) for part in state] if isinstance(state, list) else None


def test_rehearsed_without_values_its_state_is_what_training_makes(tiny_config):
    config = tiny_config(model__output="direct", optimizer__name="psgd")
    rehearsal = Rehearsal(config, torch.device("cpu"))
    rehearsal.descend(rehearsal.try_out())
    net = build_model(config.model)
    optimizer = build_optimizer(net, config.optimizer, steps=1)
    set_gradients(list(net.parameters()), 0)
    optimizer.step()
    rehearsed = rehearsal.learner.optimizer.state_dict()["parts"]["lr"]["weights"]
    assert sizes(rehearsed) == sizes(optimizer.state_dict()["parts"]["lr"]["weights"])
