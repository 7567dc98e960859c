import pytest
import torch
from tests_support.small_nets import build

from trainer.model_config import SPECTROGRAM_BINS

pytestmark = pytest.mark.usefixtures("one_thread")


def levels(frames, seed=0):
    return torch.randn(1, frames, 513, generator=torch.Generator().manual_seed(seed))


def test_the_bin_at_nyquist_is_changed_as_its_neighbour_is_and_not_looked_at():
    model, heard = build("spectrogram"), levels(24)
    other = heard.clone()
    other[..., SPECTROGRAM_BINS:] += 1.0
    with torch.no_grad():
        for made, same in zip(model.judge(heard), model.judge(other), strict=True):
            assert made.shape == (1, 24, 513)
            assert torch.equal(made, same)
            assert torch.equal(made[..., 512], made[..., 511])
            assert not torch.equal(made[..., 511], made[..., 510])


def test_frames_that_fill_the_last_patch_count_as_zeros_after_it():
    """Eight frames make a patch, by the factors 4 and 2."""
    model, heard = build("spectrogram"), levels(17)
    filled = torch.nn.functional.pad(heard, (0, 0, 0, 7))
    with torch.no_grad():
        for made, expected in zip(model.judge(heard), model.judge(filled), strict=True):
            torch.testing.assert_close(made, expected[:, :17], rtol=0, atol=1e-6)


def test_it_is_even_to_time_and_frequency_alike_but_for_its_weights():
    """Turning the image and every kernel and patch by a right angle turns what comes of it."""
    model, turned = build("spectrogram"), build("spectrogram")
    image = levels(512)[..., :512]
    with torch.no_grad():
        for name, parameter in turned.named_parameters():
            parameter.copy_(_turn(name, parameter).clone())
        padded = [torch.cat((side, side[..., -1:]), dim=-1) for side in (image, image.mT)]
        for made, other in zip(model.judge(padded[0]), turned.judge(padded[1]), strict=True):
            torch.testing.assert_close(
                made[..., :512], other[..., :512].mT, rtol=0, atol=1e-5
            )  # float32 in another order


def _turn(name, weights):
    """Return a layer's weights for an image whose time and frequency have changed places."""
    if name.endswith("depthwise.weight"):
        return weights.mT
    factor = {"0": 4, "1": 2}[name.split(".")[1]]
    if ".down.mix.weight" in name:
        return weights.unflatten(1, (factor, factor, -1)).transpose(1, 2).flatten(1)
    if ".up.mix" in name:
        return weights.unflatten(0, (factor, factor, -1)).transpose(0, 1).flatten(0, 2)
    return weights


def test_its_grid_is_whole_patches():
    model = build("spectrogram")
    assert model.grid_samples == 8 * 256
    assert model.length_multiple == 1


@pytest.mark.parametrize(
    ("shape", "frames"),
    [({}, 2 * 4 + 4 * 8 + 7), ({"kernel_size": 7, "dilation": 2}, 6 * (2 * 4 + 4 * 8) + 7)],
)
def test_the_reach_is_as_counted_by_hand(shape, frames):
    """As the waveform net's, in frames, and half a window at either end of the STFT and back."""
    assert build("spectrogram", **shape).reach_samples == 1024 + frames * 256
