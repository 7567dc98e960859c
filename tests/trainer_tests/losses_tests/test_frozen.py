import pytest
import torch
from tests_support.saved_bytes import SavedBytes
from torch import nn

from trainer.losses.frozen import FrozenConv1d

SHAPES = [
    {"kernel_size": 7, "dilation": 9, "padding": 27},
    {"kernel_size": 16, "stride": 8, "padding": 4},
    {"kernel_size": 1, "bias": False},
]


@pytest.fixture(params=SHAPES, ids=str)
def conv(request):
    torch.manual_seed(0)
    return nn.Conv1d(3, 5, **request.param)


def test_a_frozen_convolution_is_torch_s_forward_and_back(conv):
    x = torch.randn(2, 3, 100, requires_grad=True)
    frozen, expected = FrozenConv1d.from_conv(conv)(x), conv(x)
    assert frozen.tolist() == expected.tolist()
    towards = torch.randn_like(expected)
    found, wanted = (torch.autograd.grad(y, x, towards)[0] for y in (frozen, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # sums in another order


def test_a_frozen_convolution_keeps_its_weights_alone(conv):
    frozen = FrozenConv1d.from_conv(conv)
    x = torch.randn(2, 3, 100, requires_grad=True)
    with SavedBytes(frozen.parameters()).counting() as saved:
        frozen(x)
    assert saved.total == 0
    with SavedBytes(conv.parameters()).counting() as plain:
        conv.requires_grad_(False)(x)
    assert plain.total == x.nbytes  # torch's own: why there is a frozen one


def test_weights_of_a_frozen_convolution_stay(conv):
    frozen = FrozenConv1d.from_conv(conv)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
