import pytest
from tests_support.small_nets import build


@pytest.mark.parametrize(
    ("shape", "frames"), [({}, 3), ({"kernel_size": 7, "dilation": 2}, 3 * 3 * 2)]
)
def test_the_reach_is_three_blocks_in_frames_and_two_half_windows(shape, frames):
    assert build("frames", **shape).reach_samples == 1024 + frames * 256


def test_it_knows_every_bin_by_its_place_and_takes_any_frame():
    model = build("frames")
    assert model.edges()[0].in_features == 513
    assert (model.grid_samples, model.length_multiple) == (256, 1)
