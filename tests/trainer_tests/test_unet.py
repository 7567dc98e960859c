import pytest
import torch
from tests_support.small_nets import build, noise

pytestmark = pytest.mark.usefixtures("one_thread")

U_NETS = ["waveform", "spectrogram"]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("waveform", [(1024, 4), (512, 8)]),
        ("spectrogram", [(6, 128, 4), (3, 64, 8)]),  # 17 frames, filled up to 24; 512 bins
    ],
)
def test_it_down_samples_by_its_factors(family, expected):
    model, shapes = build(family), []
    for stage in model.stages:
        stage.encode.register_forward_hook(lambda _, given, made: shapes.append(made.shape[1:]))
    model(noise(1, 4096))
    assert shapes == expected


@pytest.mark.parametrize("family", U_NETS)
@pytest.mark.parametrize("silenced", [0, 1])
def test_it_has_a_skip_past_every_depth(family, silenced):
    """The input still reaches the output where a stage's blocks and all below give a constant."""
    model, clip = build(family), noise(1, 4096).requires_grad_()
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


@pytest.mark.parametrize("family", U_NETS)
def test_each_stage_does_its_blocks_on_the_way_down_and_up(family):
    model = build(family)
    counted = [(len(stage.encode), len(stage.decode)) for stage in model.stages]
    assert counted == [(1, 1), (2, 2)]
