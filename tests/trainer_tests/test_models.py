import itertools
import math
import re
import typing

import pytest
import torch

from trainer.losses.spectral import stft_distance
from trainer.model_config import ModelConfig
from trainer.models import HOP_SAMPLES, N_FFT, ConvNeXtBlock, build_model, count_parameters

CHOICES = typing.get_type_hints(ModelConfig)
FAMILIES = typing.get_args(CHOICES["family"])
OUTPUTS = typing.get_args(CHOICES["output"])
KINDS = list(itertools.product(FAMILIES, OUTPUTS))

pytestmark = pytest.mark.usefixtures("one_thread")

# The smallest net of each family with every kind of layer: a new family is missing here.
SMALL = {
    "waveform": {"channels": (1, 4, 8), "blocks": (1, 2), "factors": (4, 2)},
    "frames": {"channels": (16, 8), "blocks": (1, 2), "factors": ()},
}


def build(family, output="direct", *, seed=0, **changes):
    torch.manual_seed(seed)
    fields = {"kernel_size": 3, **SMALL[family], **changes}
    return build_model(ModelConfig(family=family, output=output, **fields))


def noise(clips, samples, level=0.3, seed=1):
    return level * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


LOG_SIZES = [  # channels, blocks, factors, kernel, parameters in millions as design.md has them
    ((1, 8, 64, 256, 512), (2, 2, 3, 4), (8, 8, 4, 2), 7, 21.5),
    ((1, 8, 64, 256, 512), (2, 2, 3, 4), (8, 8, 4, 2), 41, 21.7),
    ((1, 8, 64, 256, 512), (4, 4, 4, 4), (8, 8, 4, 2), 41, 22.9),
    ((1, 8, 64, 128, 256), (4, 4, 4, 4), (8, 8, 2, 2), 41, 6.0),
]


def count_in_millions(channels, blocks, factors, kernel_size):
    config = ModelConfig(channels=channels, blocks=blocks, factors=factors, kernel_size=kernel_size)
    with torch.device("meta"):
        return count_parameters(build_model(config)) / 1e6


@pytest.mark.parametrize(("channels", "blocks", "factors", "kernel_size", "millions"), LOG_SIZES)
def test_the_log_s_nets_have_the_log_s_sizes(channels, blocks, factors, kernel_size, millions):
    count = count_in_millions(channels, blocks, factors, kernel_size)
    assert count == pytest.approx(millions, abs=0.05)  # half of the last digit told


def test_output29_s_net_has_about_23_million_parameters():
    count = count_in_millions((1, 8, 32, 128, 256, 512), (4,) * 5, (8, 4, 4, 2, 2), 41)
    assert count == pytest.approx(23, abs=1)  # the log says "about"


# The contract of every net.


@pytest.mark.parametrize(("family", "output"), KINDS)
@pytest.mark.parametrize("samples", [4096, 5032])  # a multiple of the small net's factors only
def test_clips_of_any_allowed_length_come_back_in_their_shape(family, output, samples):
    with torch.no_grad():
        restored = build(family, output)(noise(2, samples))
    assert restored.shape == (2, samples)
    assert restored.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_with_output_difference_a_net_starts_as_the_identity(family):
    clips = noise(2, 5032)
    with torch.no_grad():
        restored = build(family, "difference")(clips)
    # Adding zeros is exact; an STFT and its inverse round a few times, on samples up to 1.2.
    tolerance = {"waveform": 0.0, "frames": 1e-6}[family]
    torch.testing.assert_close(restored, clips, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_output_direct_a_net_starts_from_nothing_of_its_input(family):
    clips = noise(2, 4096)
    with torch.no_grad():
        restored = build(family, "direct")(clips)
    assert (restored - clips).norm() > 0.5 * clips.norm()


@pytest.mark.parametrize(("family", "output"), KINDS)
def test_each_clip_of_a_batch_is_restored_by_itself(family, output):
    clips, model = noise(3, 4096), build(family, output)
    for parameter in model.parameters():  # away from the identity
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in clips])
        # Matrix products may add in another order for another batch size.
        torch.testing.assert_close(model(clips), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "output"), KINDS)
@pytest.mark.parametrize(("clip", "target"), [(0.0, 0.0), (0.0, 0.3), (0.3, 0.0)])
def test_silence_makes_finite_gradients(family, output, clip, target):
    model = build(family, output)
    loss = stft_distance(model(noise(2, 4096, clip)), noise(2, 4096, target, seed=2)).mean()
    loss.backward()
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("family", "output"), KINDS)
def test_every_parameter_takes_part_in_the_output(family, output):
    model = build(family, output)
    for parameter in model.parameters():  # zeroed layers would hide those before them
        torch.nn.init.normal_(parameter, std=0.1)
    stft_distance(model(noise(2, 4096)), noise(2, 4096, seed=2)).mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize(("family", "output"), KINDS)
def test_the_seed_decides_the_first_weights(family, output):
    weights = [build(family, output, seed=seed).state_dict() for seed in (0, 0, 1)]
    same = [torch.equal(weights[0][name], weights[1][name]) for name in weights[0]]
    assert all(same)
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edges_are_the_layers_that_touch_audio(family):
    model = build(family)
    first, last = model.edges()
    touched = {"waveform": (4, 4), "frames": (513, 2 * 513)}[family]
    assert (first.in_features, last.out_features) == touched
    names = {id(module): name for name, module in model.named_modules()}
    assert id(first) in names and id(last) in names


# An output depends on the input within this many samples and no further.
REACH_SAMPLES = {
    # Kernel 3 reaches 1 time step to each side: in stage 1 of 4 samples, once on the way down and
    # once up; in stage 2 of 8 samples, twice two; and patches of 8 samples.
    "waveform": 2 * 1 * 4 + 2 * 2 * 8 + 8,
    # Three blocks of kernel 3 reach 3 hops; frames overlap once in the STFT, once in its inverse.
    "frames": 3 * HOP_SAMPLES + 2 * N_FFT // 2 + HOP_SAMPLES,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_output_sample_depends_on_no_more_than_the_kernels_reach(family):
    """A norm over time would make everything depend on everything."""
    model, clip = build(family), noise(1, 8192).requires_grad_()
    place = 4096
    model(clip)[0, place].backward()
    distances = (clip.grad[0].nonzero().flatten() - place).abs()
    reach = REACH_SAMPLES[family]
    assert reach / 2 < distances.max() <= reach


# Each part by itself.


def test_a_block_adds_to_its_input():
    block, x = ConvNeXtBlock(8, 3), torch.randn(2, 50, 8)
    torch.nn.init.zeros_(block.narrow.weight)
    torch.nn.init.constant_(block.narrow.bias, 0.5)
    assert torch.equal(block(x), x + 0.5)


def test_a_block_is_the_convnext_block_of_its_paper():
    """Depthwise convolution, norm over channels, 4x GELU MLP: by loops over time."""
    block, x = ConvNeXtBlock(6, 5), torch.randn(1, 20, 6)
    padded = torch.nn.functional.pad(x, (0, 0, 2, 2))
    kernel = block.depthwise.weight[:, 0].T  # [tap, channel]
    with torch.no_grad():
        for time in range(20):
            y = (padded[0, time : time + 5] * kernel).sum(0) + block.depthwise.bias
            y = (y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt()
            hidden = block.widen.weight @ y + block.widen.bias
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            expected = x[0, time] + block.narrow.weight @ hidden + block.narrow.bias
            # float32 in another order, of values near 1.
            torch.testing.assert_close(block(x)[0, time], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("samples", "allowed"), [(4095, 8), (4100, 8)])
def test_the_waveform_net_refuses_clips_of_no_multiple(samples, allowed):
    expected = f"samples={samples}; must be a multiple of {allowed}, the product of model.factors"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        build("waveform")(noise(1, samples))


def test_the_waveform_net_down_samples_by_its_factors():
    model, shapes = build("waveform"), []
    for stage in model.stages:
        stage.encode.register_forward_hook(lambda _, given, made: shapes.append(made.shape[1:]))
    model(noise(1, 4096))
    assert shapes == [(1024, 4), (512, 8)]


@pytest.mark.parametrize("silenced", [0, 1])
def test_the_waveform_net_has_a_skip_past_every_depth(silenced):
    """The input still reaches the output where a stage's blocks and all below give a constant."""
    model, clip = build("waveform"), noise(1, 4096).requires_grad_()
    stage = model.stages[silenced]
    with torch.no_grad():
        stage.join.weight[:, : stage.join.in_features // 2] = 0.0  # what came from below
        for deeper in model.stages[silenced + 1 :]:
            deeper.up.mix.weight.zero_()
    seen = []
    stage.encode.register_forward_hook(lambda _, given, made: seen.append(given[0]))
    stage.join.register_forward_hook(lambda _, given, made: seen.append(given[0]))
    model(clip).sum().backward()
    skip, joined = seen
    assert torch.equal(joined[..., joined.shape[-1] // 2 :], skip)
    assert clip.grad.any()


# How far a net looks.


def farthest_dependence(model, samples):
    """Return how far from an output sample lies the farthest input that changes it.

    Looks from every position of one cell of the grid, each in a clip of its own.
    """
    cell = model.grid_samples
    middle = samples // 2 // cell * cell
    clips = noise(cell, samples).double().requires_grad_()
    outputs = middle + torch.arange(cell)
    model.double()(clips)[torch.arange(cell), outputs].sum().backward()
    clip, place = clips.grad.nonzero(as_tuple=True)
    return int((place - outputs[clip]).abs().max())


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"kernel_size": 1},
        {"channels": (1, 4, 4, 4), "blocks": (1, 1, 2), "factors": (2, 3, 4), "kernel_size": 5},
    ],
)
def test_the_waveform_net_looks_just_as_far_as_it_says(shape):
    model = build("waveform", **shape)
    assert farthest_dependence(model, 768) == model.reach_samples


@pytest.mark.parametrize("blocks", [(1, 1), (1, 2)])
def test_the_spectrogram_net_looks_no_farther_than_it_says(blocks):
    model = build("frames", blocks=blocks)
    seen = farthest_dependence(model, 4096)
    # The window tapers to nothing at its edges, and frames lie a hop apart.
    assert model.reach_samples - HOP_SAMPLES <= seen <= model.reach_samples


@pytest.mark.parametrize("family", FAMILIES)
def test_what_moves_by_the_grid_is_restored_as_before_but_for_the_edges(family):
    model = build(family)
    shift, far = model.grid_samples, model.reach_samples + model.grid_samples
    clips = noise(1, 6144 // shift * shift + shift)
    with torch.no_grad():
        moved, whole = model(clips[:, shift:]), model(clips)
    inside = slice(far, -far)
    # The same arithmetic on shorter clips: float32, of values below 1.
    torch.testing.assert_close(moved[:, inside], whole[:, shift:][:, inside], rtol=0, atol=1e-5)


def with_constant_head(*, log_gain, turn, output="difference"):
    """A spectrogram net whose head ignores its input."""
    model = build("frames", output)
    torch.nn.init.zeros_(model.head.weight)
    bins = N_FFT // 2 + 1
    with torch.no_grad():
        model.head.bias[:bins], model.head.bias[bins:] = log_gain, turn
    return model


def test_the_spectrogram_head_is_log_gain_and_turn_of_phase():
    clips = noise(2, 5000)
    with torch.no_grad():
        louder = with_constant_head(log_gain=0.5, turn=0.0)(clips)
        turned = with_constant_head(log_gain=0.0, turn=math.pi)(clips)
    gain = math.exp(6 * math.tanh(0.5 / 6))
    torch.testing.assert_close(louder, gain * clips, rtol=0, atol=5e-6)  # float32, 1.6 times 1.2
    torch.testing.assert_close(turned, -clips, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_spectrogram_net_changes_a_magnitude_by_at_most_52_db(sign):
    clips = noise(2, 5000)
    with torch.no_grad():
        restored = with_constant_head(log_gain=sign * 1e9, turn=0.0)(clips)
    ratio_db = 20 * math.log10(float(restored.norm() / clips.norm()))
    assert ratio_db == pytest.approx(sign * 20 * 6 * math.log10(math.e), abs=1e-3)  # float32


def test_with_output_direct_the_spectrogram_net_takes_only_the_phase_from_its_input():
    clips = noise(2, 5000)
    model = with_constant_head(log_gain=1.0, turn=0.0, output="direct")
    with torch.no_grad():
        one, louder = model(clips), model(10 * clips)
    # The same phases at the same, constant magnitude. Rounding of phases of faint bins.
    torch.testing.assert_close(one, louder, rtol=0, atol=1e-4)
    assert one.abs().max() > 0.01
