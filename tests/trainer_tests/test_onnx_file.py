import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests_support.trained_folder import TINY, random_net, tiny_config

import trainer
from trainer.onnx_file import NoOnnx, write_onnx

pytestmark = pytest.mark.usefixtures("one_thread")


OF_SOME = {"spectrogram": {"model__activation": "snake", "model__dilation": 2}}
"""Fields that are tried with one family, for each takes seconds to translate."""


@pytest.fixture(scope="module", params=sorted(TINY))
def written(request, tmp_path_factory):
    """A net, its file, and the difference that was found: seconds of translation, done once."""
    net = random_net(tiny_config(request.param, **OF_SOME.get(request.param, {})).model)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return net, path, write_onnx(net, path)


@pytest.mark.parametrize(("clips", "samples"), [(1, 1024), (2, 8192), (5, 12_344)])
def test_onnx_runtime_gives_what_pytorch_gives_at_any_shape(written, clips, samples):
    net, path, _ = written
    signal = np.random.default_rng(0).uniform(-1, 1, (clips, samples)).astype(np.float32)
    restored = onnxruntime.InferenceSession(path).run(["restored"], {"clips": signal})[0]
    with torch.inference_mode():
        expected = net(torch.from_numpy(signal)).numpy()
    assert np.abs(expected - signal).max() > 0.1  # the net does something
    np.testing.assert_allclose(restored, expected, atol=1e-4)  # the contract's


def test_the_difference_is_told_and_is_that_of_rounding(written):
    assert 0 < written[2] < 1e-4


def test_the_file_tells_nothing_of_this_machine(written):
    assert str(Path(trainer.__file__).parent).encode() not in written[1].read_bytes()


class Fickle(torch.nn.Module):
    """A net that never does the same twice."""

    length_multiple = 1

    def forward(self, clips):
        return clips + torch.rand_like(clips)


class Choosy(torch.nn.Module):
    """A net whose way depends on what it hears, which no graph can follow."""

    length_multiple = 1

    def forward(self, clips):
        return clips if clips.sum() > 0 else -clips


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Fickle(), r"it differs from PyTorch by .*, more than 0\.0001"),
        (Choosy(), "torch.onnx cannot translate this net"),
    ],
)
def test_a_net_that_comes_out_wrong_leaves_no_file(tmp_path, net, message):
    with pytest.raises(NoOnnx, match=message):
        write_onnx(net, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_its_packages_it_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(NoOnnx, match=r"it needs onnxscript \(pip install onnx "):
        write_onnx(random_net(tiny_config("waveform").model), tmp_path / "model.onnx")
