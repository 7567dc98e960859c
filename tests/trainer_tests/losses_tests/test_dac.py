"""The term `dac`, on small nets of DAC's real classes, saved as its authors save theirs."""

import re
import warnings

import pytest
import torch
from tests_support.saved_bytes import SavedBytes
from tests_support.signals import noise
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.losses.dac import DacDistance

pytestmark = pytest.mark.usefixtures("one_thread")

GB = 10**9
STEM = "encoder.block.0.bias"


def build_dac(**changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dac import DAC

        small = {"encoder_dim": 8, "decoder_dim": 16, "n_codebooks": 1}
        return DAC(**small | changes)


@pytest.fixture(scope="module")
def dac():
    torch.manual_seed(0)
    return build_dac()


@pytest.fixture(scope="module")
def weights(dac, tmp_path_factory):
    file = tmp_path_factory.mktemp("dac") / "weights.pth"
    dac.save(file, package=False)
    return file


def outputs(net, modules, clips):
    """Return what some modules of a net make of clips [clip, sample]."""
    made = []
    hooks = [m.register_forward_hook(lambda _, __, out: made.append(out)) for m in modules]
    net(clips[:, None])
    for hook in hooks:
        hook.remove()
    return made


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("features", ["units", "blocks"])
def test_the_distance_is_that_of_the_published_encoder_s_features(dac, weights, blocks, features):
    chosen = dac.encoder.block[1 : 1 + blocks]
    units = [unit for block in chosen for unit in block.block[:3]]
    estimate, target = noise(2, 4096), noise(2, 4096, seed=1)
    made, aim = (
        outputs(dac.encoder, units if features == "units" else chosen, clips)
        for clips in (estimate, target)
    )
    ratios = [
        (a - b).abs().mean((1, 2)) / b.abs().mean((1, 2)) for a, b in zip(made, aim, strict=True)
    ]
    assert len(ratios) == (3 * blocks if features == "units" else blocks)
    found = DacDistance(blocks=blocks, features=features, weights=weights)(estimate, target)
    expected = torch.stack(ratios).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # weight norm folded: float32


def test_without_weights_the_encoder_is_the_published_one():
    net = DacDistance(blocks=4, features="blocks")
    # DAC's 44.1 kHz encoder without its last snake and convolution, weight norm folded.
    stem, width, count = 7 * 64 + 64, 64, 0
    for stride in (2, 4, 8, 8):
        unit = 2 * width + 7 * width * width + width + width * width + width
        count += 3 * unit + width + 2 * stride * width * 2 * width + 2 * width
        width *= 2
    assert sum(p.numel() for p in net.parameters()) == stem + count


@pytest.mark.parametrize("features", ["units", "blocks"])
def test_all_blocks_on_four_clips_of_the_log_need_less_than_four_gigabytes(features):
    with FakeTensorMode():
        net = DacDistance(blocks=4, features=features)
        estimate, target = torch.empty(4, 49_152).requires_grad_(), torch.empty(4, 49_152)
        with SavedBytes(net.parameters()).counting() as saved:
            net(estimate, target)
    assert 0.5 * GB < saved.total < 4 * GB


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"no weights"),
        lambda file: file.write_bytes(file.read_bytes()[:1000]),
        lambda file: torch.save({"state_dict": {}}, file),
        lambda file: torch.save([1], file),
        lambda file: torch.save(build_dac, file),
        lambda file: build_dac(sample_rate=24_000).save(file, package=False),
        lambda file: _change(file, lambda saved: saved["state_dict"].popitem(last=False)),
        lambda file: _change_kwargs(file, encoder_dim=4),
        lambda file: _change_kwargs(file, encoder_dim=10**12),
        lambda file: _change_kwargs(file, encoder_rates=[2, 4]),
        lambda file: _change_kwargs(file, sample_rate="44100\nHz"),
        lambda file: torch.save(torch.ones(3), file),
        lambda file: file.write_bytes(b"\x80\x02."),
        lambda file: _change(file, lambda saved: saved["metadata"].update(kwargs=[44_100])),
        lambda file: _change(file, lambda saved: saved.update(state_dict=[1, 2])),
        lambda file: _change(file, lambda saved: saved.update(state_dict={1: torch.ones(1)})),
        lambda file: _change(file, lambda saved: saved["state_dict"].update({STEM: "bias"})),
    ],
    ids=[
        *("text", "cut", "no kwargs", "list", "code", "other rate", "no stem"),
        *("other width", "too wide", "less deep", "rate of two lines", "a tensor"),
        *("an empty pickle", "kwargs a list", "state a list", "names of numbers", "a text"),
    ],
)
def test_another_file_is_refused_in_a_line(weights, tmp_path, damage):
    file = tmp_path / "weights.pth"
    file.write_bytes(weights.read_bytes())
    damage(file)
    expected = f"^loss.dac_weights={re.escape(str(file))}; must be a file with DAC's weights.*$"
    with pytest.raises(ValueError, match=expected):
        DacDistance(blocks=1, features="units", weights=file)


def test_more_blocks_than_a_file_s_encoder_has_are_refused_in_a_line(tmp_path):
    file = tmp_path / "weights.pth"
    build_dac(encoder_rates=[2, 4], decoder_rates=[4, 2]).save(file, package=False)
    DacDistance(blocks=2, features="units", weights=file)
    with pytest.raises(ValueError, match=r"^loss\.dac_weights=.*; its encoder is another$"):
        DacDistance(blocks=3, features="units", weights=file)


def _change_kwargs(file, **changes):
    _change(file, lambda saved: saved["metadata"]["kwargs"].update(changes))


def _change(file, change):
    saved = torch.load(file, weights_only=True)
    change(saved)
    torch.save(saved, file)
