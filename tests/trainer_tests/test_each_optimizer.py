"""Each optimizer by itself: which weights are its own, and how far they move."""

import numpy as np
import pytest
import torch
from tests_support import reference
from tests_support.optimized_nets import (
    FAMILIES,
    build,
    matrix_names,
    moved,
    same,
    set_gradients,
    weights_of,
)

from trainer.muon import Muon
from trainer.optimizers import split_parameters

pytestmark = pytest.mark.usefixtures("one_thread")


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
