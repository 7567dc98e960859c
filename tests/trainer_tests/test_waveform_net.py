import re

import pytest
import torch
from tests_support.small_nets import build, noise

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("samples", [4095, 4100])
def test_clips_of_no_multiple_are_refused(samples):
    expected = f"samples={samples}; must be a multiple of 8, the product of model.factors"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        build("waveform")(noise(1, samples))


def test_a_difference_is_added_to_the_clip():
    model, direct = build("waveform", "difference"), build("waveform")
    model.load_state_dict(direct.state_dict())
    clips = noise(2, 4096)
    with torch.no_grad():
        assert torch.equal(model(clips), clips + direct(clips))


@pytest.mark.parametrize(
    ("shape", "reach"),
    [
        # Kernel 3 looks 1 step to each side: in stage 1 of 4 samples, once on the way down and once
        # up; in stage 2 of 8 samples, twice two; and patches of 8 samples.
        ({}, 2 * 1 * 4 + 2 * 2 * 8 + 7),
        ({"kernel_size": 1}, 7),
        ({"dilation": 11}, 11 * (2 * 1 * 4 + 2 * 2 * 8) + 7),
        ({"kernel_size": 11, "dilation": 11}, 55 * (2 * 1 * 4 + 2 * 2 * 8) + 7),
        (
            {"channels": (1, 4, 4, 4), "blocks": (1, 1, 2), "factors": (2, 3, 4), "kernel_size": 5},
            2 * 2 * 2 + 2 * 2 * 6 + 4 * 2 * 24 + 23,
        ),
    ],
)
def test_the_reach_is_as_counted_by_hand(shape, reach):
    assert build("waveform", **shape).reach_samples == reach
