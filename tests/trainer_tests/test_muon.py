import pytest
import torch
from tests_support import reference

from trainer.muon import Muon, orthogonalize

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(6, 6), (4, 12), (12, 4), (40, 8)]


def matrix(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_orthogonalized_matrix_keeps_its_singular_vectors(shape):
    given = matrix(shape)
    made = orthogonalize(given, dtype=torch.float32)
    u, _, vh = torch.linalg.svd(given, full_matrices=False)
    inside = u.T @ made @ vh.T
    singular = inside.diagonal()
    assert 0.6 < singular.min() and singular.max() < 1.2
    # Float32 in five iterations of a 40-row matrix: what is off the diagonal is rounding.
    assert (inside - singular.diag()).abs().max() < 1e-4
    nearest = torch.from_numpy(reference.nearest_orthogonal(given)).float()
    assert (made - nearest).abs().max() < 0.4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_in_bfloat16_every_step_is_torchs_to_the_last_bit(shape, weight_decay):
    ours, torchs = (torch.nn.Parameter(matrix(shape)) for _ in range(2))
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": weight_decay}
    steps = [
        (ours, Muon([ours], **settings, dtype=torch.bfloat16)),
        (torchs, torch.optim.Muon([torchs], **settings, adjust_lr_fn="original")),
    ]
    for seed in (1, 2, 3):
        for weight, optimizer in steps:
            weight.grad = matrix(shape, seed)
            optimizer.step()
    assert torch.equal(ours, torchs)
    assert not torch.equal(ours, matrix(shape))


def test_on_a_cpu_the_arithmetic_is_float32():
    weight = torch.nn.Parameter(torch.zeros(8, 4))
    weight.grad = matrix((8, 4))
    Muon([weight], lr=1.0, momentum=0.0, weight_decay=0.0).step()
    expected = -(2**0.5) * orthogonalize(weight.grad, dtype=torch.float32)
    assert torch.equal(weight.detach(), expected)


def test_no_gradient_moves_nothing():
    weight = torch.nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)
    Muon([weight], lr=1.0, momentum=0.9, weight_decay=0.0).step()
    assert torch.equal(weight.detach(), torch.ones(3, 3))
