import math
import shutil

import pytest
import torch
from tests_support.trained_folder import TINY, random_net, tiny_config, write_trained

from trainer.checkpoint import load_best, save_best
from trainer.trained import read_trained, restore_clips

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def clips(count, samples):
    return 2 * torch.rand(count, samples, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("family", sorted(TINY))
def test_a_net_comes_back_as_it_was_trained_and_ready_for_use(tmp_path, family):
    config = tiny_config(family)
    net = write_trained(tmp_path, config, seed=3).load(CPU)
    assert not net.training
    signal = clips(2, 4096)
    with torch.inference_mode():
        assert torch.equal(net(signal), random_net(config.model, seed=3)(signal))


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"x" * len(b)])
def test_damaged_weights_are_refused_by_name(tmp_path, damage):
    trained = write_trained(tmp_path, tiny_config("waveform"))
    file = tmp_path / "best.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"weights=.*best\.safetensors; must be the record's"):
        trained.load(CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    trained = write_trained(tmp_path, tiny_config("waveform"))
    weights = load_best(tmp_path)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = value
    save_best(tmp_path, weights, step=1)
    expected = rf"^weights=.*best\.safetensors; must be finite: {name} has NaN or infinities$"
    with pytest.raises(ValueError, match=expected):
        trained.load(CPU)


def test_weights_too_large_for_the_net_s_type_are_refused(tmp_path):
    trained = write_trained(tmp_path, tiny_config("waveform"))
    weights = {name: value.double() + 1e300 for name, value in load_best(tmp_path).items()}
    save_best(tmp_path, weights, step=1)
    with pytest.raises(ValueError, match=r"^weights=.*best\.safetensors; must be finite: "):
        trained.load(CPU)


def test_the_weights_of_another_net_are_refused_in_one_line(tmp_path):
    trained = write_trained(tmp_path / "a", tiny_config("waveform"))
    write_trained(tmp_path / "b", tiny_config("waveform", model__channels=(1, 4, 16)))
    shutil.copy(tmp_path / "b" / "best.safetensors", tmp_path / "a")
    with pytest.raises(ValueError, match=r"weights=.*must be the record's net's") as caught:
        trained.load(CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "record=.*and there is none"), ("best.safetensors", "weights=.*must exist")],
)
def test_a_folder_without_record_or_weights_is_refused(tmp_path, missing, message):
    write_trained(tmp_path, tiny_config("waveform"))
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=message):
        read_trained(tmp_path)


@pytest.mark.parametrize("family", sorted(TINY))
@pytest.mark.parametrize("samples", [1, 7, 1024])
def test_clips_of_a_window_or_less_are_restored_as_with_silence_up_to_one(family, samples):
    net = random_net(tiny_config(family).model)
    signal = clips(2, samples)
    with torch.inference_mode():
        expected = net(torch.cat((signal, torch.zeros(2, 1024 - samples)), dim=1))[:, :samples]
    assert torch.equal(restore_clips(net, signal), expected)


@pytest.mark.parametrize("family", sorted(TINY))
def test_a_clip_s_length_changes_no_more_than_the_reach_of_its_end(family):
    net = random_net(tiny_config(family).model)
    signal = clips(2, 12_345)  # a multiple of nothing
    with torch.inference_mode():
        expected = net(torch.cat((signal, clips(2, 8192 - 12_345 % 8192)), dim=1))
    restored = restore_clips(net, signal)
    assert restored.shape == signal.shape
    inner = slice(12_345 - net.reach_samples)
    torch.testing.assert_close(restored[:, inner], expected[:, inner], atol=1e-5, rtol=0)
