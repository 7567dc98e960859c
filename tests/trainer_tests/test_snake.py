"""Snake: its formula, as the two sources compute it, its gradients, and what it keeps."""

import pytest
import torch

from trainer.snake import Snake, snake


def plain(x, alpha):
    """DAC's, word for word, on [batch, channel, sample] with alpha [1, channel, 1]."""
    return x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)


def signals(dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(2, 5, 7, generator=random, dtype=dtype)
    return x, 0.1 + 2 * torch.rand(5, generator=random, dtype=dtype)


def test_equals_the_plain_formula_to_the_last_bit():
    x, alpha = signals()
    assert snake(x, alpha, channel_dim=1).equal(plain(x, alpha.view(1, -1, 1)))


def test_channels_last_is_the_same_transposed():
    x, alpha = signals()
    turned = snake(x.transpose(1, 2), alpha, channel_dim=-1).transpose(1, 2)
    assert turned.equal(snake(x, alpha, channel_dim=1))


def test_gradients_are_those_of_the_formula():
    x, alpha = (value.requires_grad_() for value in signals(torch.float64))
    assert torch.autograd.gradcheck(lambda *of: snake(*of, channel_dim=1), (x, alpha))


def test_gradients_hold_at_zero_and_near_zero_alpha():
    x = torch.tensor([[0.0, 1e-4, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor([1e-3, 1e-3, 1e-3, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *of: snake(*of, channel_dim=-1), (x, alpha))


def test_a_frozen_alpha_gives_the_same_gradient_of_x_and_none_of_its_own():
    x, alpha = signals()
    trained, frozen = x.clone().requires_grad_(), x.clone().requires_grad_()
    snake(trained, alpha.clone().requires_grad_(), channel_dim=1).square().sum().backward()
    snake(frozen, alpha, channel_dim=1).square().sum().backward()
    assert frozen.grad is not None
    assert frozen.grad.equal(trained.grad)
    assert alpha.grad is None


def test_keeps_nothing_of_the_inputs_size_but_the_input():
    x, alpha = signals()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        snake(x.requires_grad_(), alpha.requires_grad_(), channel_dim=1)
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() == x.numel()] == [x.data_ptr()]


def test_bfloat16_stays_bfloat16_and_is_computed_in_float32():
    x, alpha = signals()
    coarse = (10 * x).bfloat16()
    exact = plain(coarse.float(), alpha.view(1, -1, 1)).bfloat16()
    assert snake(coarse, alpha, channel_dim=1).equal(exact)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch.compile's own doing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channel_dim", [1, -2])
def test_compiled_gradients_are_those_of_the_formula(dtype, channel_dim):
    """A gradient that torch.compile loses is zero, and nobody is told."""

    def loss(x, log_alpha):
        return (
            snake(2 * x.to(dtype), log_alpha.exp(), channel_dim=channel_dim).float().square().sum()
        )

    x, alpha = (value.requires_grad_() for value in signals())
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(loss(x, alpha), (x, alpha))
    torch.testing.assert_close(torch.autograd.grad(compiled(x, alpha), (x, alpha)), expected)


def test_the_module_starts_as_bigvgans_with_alpha_one():
    x, _ = signals()
    assert Snake(7)(x).equal(plain(x, torch.ones(1)))


def test_alpha_of_another_size_is_refused():
    x, alpha = signals()
    with pytest.raises(ValueError, match=r"alpha=\[5\]; must be \[7\], a number per channel"):
        snake(x, alpha, channel_dim=-1)
