"""The contract of every net, found by its family, with what each part of the model config changes.

What only one kind of net does is tested in the file of its module.
"""

import itertools
import math
import typing

import pytest
import torch
from tests_support.small_nets import OTHERWISE, build, noise

from trainer.losses.spectral import stft_distance
from trainer.model_config import ModelConfig
from trainer.models import build_model, count_parameters

CHOICES = typing.get_type_hints(ModelConfig)
FAMILIES = typing.get_args(CHOICES["family"])
OUTPUTS = typing.get_args(CHOICES["output"])
KINDS = list(itertools.product(FAMILIES, OUTPUTS))
SHAPES = [{}, OTHERWISE]

pytestmark = pytest.mark.usefixtures("one_thread")


LOG_SIZES = [  # channels, blocks, factors, kernel, parameters in millions as design.md has them
    ((1, 8, 64, 256, 512), (2, 2, 3, 4), (8, 8, 4, 2), 7, 21.5),
    ((1, 8, 64, 256, 512), (2, 2, 3, 4), (8, 8, 4, 2), 41, 21.7),
    ((1, 8, 64, 256, 512), (4, 4, 4, 4), (8, 8, 4, 2), 41, 22.9),
    ((1, 8, 64, 128, 256), (4, 4, 4, 4), (8, 8, 2, 2), 41, 6.0),
    ((1, 8, 32, 128, 256, 512), (4, 4, 4, 4, 4), (8, 4, 4, 2, 2), 41, 23.8),  # "about 23"
]


@pytest.mark.parametrize(("channels", "blocks", "factors", "kernel_size", "millions"), LOG_SIZES)
def test_the_log_s_nets_have_the_log_s_sizes(channels, blocks, factors, kernel_size, millions):
    config = ModelConfig(channels=channels, blocks=blocks, factors=factors, kernel_size=kernel_size)
    with torch.device("meta"):
        count = count_parameters(build_model(config)) / 1e6
    assert count == pytest.approx(millions, abs=0.05)  # half of the last digit told


@pytest.mark.parametrize(("family", "output"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("samples", [4096, 5032])  # a multiple of the small net's factors only
def test_clips_of_any_allowed_length_come_back_in_their_shape(family, output, shape, samples):
    with torch.no_grad():
        restored = build(family, output, **shape)(noise(2, samples))
    assert restored.shape == (2, samples)
    assert restored.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_with_output_difference_a_net_starts_as_the_identity(family, shape):
    clips = noise(2, 5032)
    with torch.no_grad():
        restored = build(family, "difference", **shape)(clips)
    # Adding zeros is exact; an STFT and its inverse round a few times, on samples up to 1.2.
    tolerance = 0.0 if family == "waveform" else 1e-6
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
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("clip", "target"), [(0.0, 0.0), (0.0, 0.3), (0.3, 0.0)])
def test_silence_makes_finite_gradients(family, output, shape, clip, target):
    model = build(family, output, **shape)
    loss = stft_distance(model(noise(2, 4096, clip)), noise(2, 4096, target, seed=2)).mean()
    loss.backward()
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("family", "output"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_takes_part_in_the_output(family, output, shape):
    model = build(family, output, **shape)
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


REVISION_1 = {  # of seed 0: how many weights, their sum, and the last of them; then of what is
    # made of noise the norm and one sample. Taken from that revision's own code.
    "waveform": (3100, 34.919007021140715, 0.3525649607181549, 14.2630634, 0.2074301),
    "frames": (21066, 86.30442282991135, -0.1430845856666565, 3.7850974, 0.0132767),
}


@pytest.mark.parametrize("family", sorted(REVISION_1))
def test_a_net_is_the_one_that_revision_1_began_with(family):
    model = build(family)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    with torch.no_grad():
        restored = model(noise(1, 4096))[0].double()
    found = (len(weights), weights.sum(), weights[-1], restored.norm(), restored[2000])
    # Equal to the last bit on the machine it was taken on; float32 in another order elsewhere.
    assert [float(value) for value in found] == pytest.approx(REVISION_1[family], rel=1e-5)


NAMES = {  # of a trial's saved weights, which are to be loaded by all later revisions
    "waveform": ("stages.0.down.mix.weight", "stages.1.encode.1.depthwise.weight"),
    "spectrogram": ("stages.0.up.mix.bias", "stages.1.join.weight"),
    "frames": ("body.2.widen.weight", "body.5.norm.bias", "head.bias"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_keep_the_names_that_they_were_saved_under(family):
    model = build(family)
    assert set(NAMES[family]) <= set(model.state_dict())
    assert "window" not in model.state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edges_are_the_layers_that_touch_audio(family):
    model = build(family)
    first, last = model.edges()
    # Patches of 4 samples; of 4 x 4 levels, and so many gains and turns; all bins.
    touched = {"waveform": (4, 4), "spectrogram": (16, 2 * 16), "frames": (513, 2 * 513)}[family]
    assert (first.in_features, last.out_features) == touched
    names = {id(module): name for name, module in model.named_modules()}
    assert id(first) in names and id(last) in names


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_mix_channels_are_matrices(family):
    """Muon takes them as they are; a depthwise kernel mixes none."""
    for name, parameter in build(family, **OTHERWISE).named_parameters():
        assert parameter.ndim <= 2 or (".depthwise." in name and parameter.shape[1] == 1)


# How far a net looks.


def farthest_change(model, places, samples):
    """Return how far from a changed sample lies the farthest one that changes with it.

    Each of the places is changed in a clip of its own. In float64, and with blocks that add more
    than at first: so that what has come by the longest way is not lost in rounding.
    """
    for name, parameter in model.double().named_parameters():
        if ".depthwise." in name or ".narrow." in name:
            parameter.data *= 4
    clips = noise(1, samples).double().repeat(len(places), 1)
    changed = clips.clone()
    changed[torch.arange(len(places)), places] += 0.5
    with torch.no_grad():
        clip, place = (model(changed) != model(clips)).nonzero(as_tuple=True)
    return int((place - places[clip]).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "shape", [{}, {"kernel_size": 5}, {"dilation": 2}, {"dilation": 3, "activation": "snake"}]
)
def test_a_sample_changes_all_within_the_reach_and_nothing_beyond(family, shape):
    """A norm over time would make everything depend on everything."""
    model = build(family, **shape)
    samples = math.ceil((2 * model.reach_samples + model.grid_samples) / 8) * 8
    # All places that can differ: each of a grid cell's samples; each of its frames, with a sample
    # that is as far from a frame's middle as the window reaches, which tapers to nothing there.
    step, offset, unseen = (1, 0, 0) if family == "waveform" else (256, 1, 8)
    places = samples // 2 // model.grid_samples * model.grid_samples + offset
    places = places + torch.arange(0, model.grid_samples, step)
    farthest = farthest_change(model, places, samples)
    assert model.reach_samples - unseen <= farthest <= model.reach_samples


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_moves_by_the_grid_is_restored_as_before_but_for_the_edges(family, shape):
    model = build(family, **shape)
    shift, far = model.grid_samples, model.reach_samples + model.grid_samples
    clips = noise(1, (2 * far // shift + 3) * shift)
    with torch.no_grad():
        moved, whole = model(clips[:, shift:]), model(clips)
    inside = slice(far, -far)
    assert moved[:, inside].numel() >= shift
    # The same arithmetic on shorter clips: float32, of values below 1.
    torch.testing.assert_close(moved[:, inside], whole[:, shift:][:, inside], rtol=0, atol=1e-5)
