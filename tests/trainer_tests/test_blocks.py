import math

import pytest
import torch
from tests_support.small_nets import small_config
from torch.nn import functional as F

from trainer.blocks import ConvNeXtBlock, DownSample, UpSample
from trainer.snake import Snake


def block(width, *, dimensions=1, **changes):
    torch.manual_seed(0)
    family = "waveform" if dimensions == 1 else "spectrogram"
    return ConvNeXtBlock(width, small_config(family, **changes), dimensions=dimensions)


@pytest.mark.parametrize("sizes", [(50,), (10, 7)])
def test_a_block_adds_to_its_input(sizes):
    made, x = block(8, dimensions=len(sizes)), torch.randn(2, *sizes, 8)
    torch.nn.init.zeros_(made.narrow.weight)
    torch.nn.init.constant_(made.narrow.bias, 0.5)
    assert torch.equal(made(x), x + 0.5)


def expected_at(made, seen, place):
    """Norm over channels, 4x GELU MLP: of what the kernel sees, [tap, channel], around a place."""
    kernel = made.depthwise.weight[:, 0].flatten(1).T  # [tap, channel]
    y = (seen * kernel).sum(0) + made.depthwise.bias
    y = (y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt()
    hidden = made.widen.weight @ y + made.widen.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return place + made.narrow.weight @ hidden + made.narrow.bias


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_block_is_the_convnext_block_of_its_paper(dilation):
    made, x = block(6, kernel_size=5, dilation=dilation), torch.randn(1, 20, 6)
    far = 2 * dilation
    padded = F.pad(x, (0, 0, far, far))[0]
    with torch.no_grad():
        for time in range(20):
            seen = padded[time : time + 2 * far + 1 : dilation]
            expected = expected_at(made, seen, x[0, time])
            # float32 in another order, of values near 1.
            torch.testing.assert_close(made(x)[0, time], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_block_in_two_dimensions_looks_around_in_both(dilation):
    made = block(6, dimensions=2, kernel_size=3, dilation=dilation)
    x = torch.randn(1, 5, 4, 6)
    padded = F.pad(x, (0, 0, dilation, dilation, dilation, dilation))[0]
    around = range(0, 2 * dilation + 1, dilation)
    with torch.no_grad():
        for time in range(5):
            for frequency in range(4):
                seen = [padded[time + t, frequency + f] for t in around for f in around]
                expected = expected_at(made, torch.stack(seen), x[0, time, frequency])
                torch.testing.assert_close(made(x)[0, time, frequency], expected, rtol=0, atol=1e-5)


def test_snake_stands_where_gelu_does():
    plain, snaking = block(6), block(6, activation="snake")
    snaking.load_state_dict(plain.state_dict() | {"activate.log_alpha": torch.zeros(24)})
    x, hidden = torch.randn(1, 9, 6), []
    snaking.narrow.register_forward_hook(lambda _, given, made: hidden.append(given[0]))
    with torch.no_grad():
        snaking(x)
        widened = plain.widen(plain.norm(plain.depthwise(x.transpose(1, 2)).transpose(1, 2)))
    torch.testing.assert_close(hidden[0], widened + widened.sin() ** 2)
    assert isinstance(snaking.activate, Snake)


def conv_weight(mix, factor, dimensions):
    """Return a DownSample's matrix as a convolution's weight, [out, in, f...]."""
    patches = mix.weight.unflatten(1, (*[factor] * dimensions, -1))
    return patches.movedim(-1, 1)


@pytest.mark.parametrize(("sizes", "factor"), [((24,), 4), ((6, 9), 3), ((8, 4), 1)])
def test_down_sampling_is_a_convolution_whose_stride_is_its_kernel(sizes, factor):
    dimensions = len(sizes)
    down, x = DownSample(5, 7, factor, dimensions=dimensions), torch.randn(2, *sizes, 5)
    convolve = {1: F.conv1d, 2: F.conv2d}[dimensions]
    weight = conv_weight(down.mix, factor, dimensions)
    expected = convolve(x.movedim(-1, 1), weight, down.mix.bias, stride=factor).movedim(1, -1)
    torch.testing.assert_close(down(x), expected, rtol=0, atol=1e-5)  # float32 in another order


@pytest.mark.parametrize(("sizes", "factor"), [((6,), 4), ((2, 3), 3), ((8, 4), 1)])
def test_up_sampling_is_a_transposed_convolution_whose_stride_is_its_kernel(sizes, factor):
    dimensions = len(sizes)
    up, x = UpSample(5, 7, factor, dimensions=dimensions), torch.randn(2, *sizes, 5)
    torch.nn.init.zeros_(up.mix.bias)  # one per place in a patch, which no convolution has
    convolve = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[dimensions]
    weight = up.mix.weight.T.unflatten(1, (*[factor] * dimensions, 7)).movedim(-1, 1)
    expected = convolve(x.movedim(-1, 1), weight, stride=factor).movedim(1, -1)
    torch.testing.assert_close(up(x), expected, rtol=0, atol=1e-5)  # float32 in another order
