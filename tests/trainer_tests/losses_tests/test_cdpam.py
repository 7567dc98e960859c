import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trainer.config import SAMPLE_RATE_HZ
from trainer.losses.cdpam import (
    MAX_SEGMENTS,
    RATE_HZ,
    SEGMENT_SAMPLES,
    _draw_weights,
    cdpam_distance,
    load_cdpam,
)
from trainer.losses.foreign import find_cdpam
from trainer.losses.old_pickle import load_tensors

FIRST = "base_encoder.encoder.0.weight"
PACKAGE = importlib.util.find_spec("cdpam")
needs_cdpam = pytest.mark.skipif(PACKAGE is None, reason="needs the extra cdpam")

pytestmark = pytest.mark.usefixtures("one_thread")


def tones(rate_hz, seconds=0.25, seed=0):
    """Return steady tones below 6 kHz [sample], the same at every rate."""
    random = np.random.default_rng(seed)
    hz, phase = random.uniform(100, 6000, 20), random.uniform(0, 2 * np.pi, 20)
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    signal = 0.02 * np.sin(2 * np.pi * hz[:, None] * time_s + phase[:, None]).sum(0)
    return torch.from_numpy(signal.astype(np.float32))


def published_distance(estimate, target):
    """Return what the package's own net gives for signals [sample] at its rate and 16-bit scale.

    Its module of nets alone: the package itself imports what it does not ask for.
    """
    folder = Path(PACKAGE.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("cdpam_models", folder / "models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    net = models.FINnet(encoder_layers=16, encoder_filters=64, ndim=[16, 6], input_size=512)
    net.load_state_dict(load_tensors(find_cdpam())["state"])
    with torch.no_grad():
        _, made, _ = net.eval().base_encoder(estimate[None, None])
        _, aim, _ = net.base_encoder(target[None, None])
        return net.model_dist(F.normalize(aim, dim=1), F.normalize(made, dim=1)).item()


@pytest.mark.skipif(PACKAGE is not None, reason="the extra cdpam is installed")
def test_there_is_no_distance_without_the_extra():
    signal = tones(SAMPLE_RATE_HZ)
    assert cdpam_distance(signal, signal) is None


@needs_cdpam
def test_the_distance_is_that_of_the_package_s_own_net():
    estimate, target = (32_768 * tones(RATE_HZ, seed=seed) for seed in (1, 0))
    expected = published_distance(estimate, target)
    with torch.no_grad():
        found = cdpam_distance(*(tones(SAMPLE_RATE_HZ, seed=seed) for seed in (1, 0)))
    assert expected > 0.01  # at a scale of 1 every distance is about 0
    assert found == pytest.approx(expected, rel=0.02)  # the ends of what was resampled


@needs_cdpam
@torch.no_grad()
def test_a_long_recording_s_distance_is_the_mean_over_its_segments():
    estimate, target = (tones(SAMPLE_RATE_HZ, 0.3, seed=seed) for seed in (1, 0))
    halves = zip(estimate.chunk(2), target.chunk(2), strict=True)
    expected = np.mean([cdpam_distance(*half) for half in halves])
    found = cdpam_distance(estimate, target, segment_samples=10_000)
    assert found == pytest.approx(expected, rel=1e-5)  # float32


@needs_cdpam
@torch.no_grad()
def test_equal_signals_and_silence_have_no_distance():
    assert cdpam_distance(tones(SAMPLE_RATE_HZ), tones(SAMPLE_RATE_HZ)) == 0.0
    assert cdpam_distance(torch.zeros(4096), torch.zeros(4096)) == 0.0


@needs_cdpam
def test_the_term_is_the_metric_of_each_clip():
    estimate, target = (
        torch.stack([tones(SAMPLE_RATE_HZ, 0.1, s) for s in t]) for t in ((1, 2), (0, 3))
    )
    term = load_cdpam(find_cdpam(), torch.device("cpu"))
    with torch.no_grad():
        expected = [cdpam_distance(*pair) for pair in zip(estimate, target, strict=True)]
    assert term(estimate, target).tolist() == pytest.approx(expected, rel=1e-5)  # float32


def test_a_minute_is_all_that_is_looked_at():
    assert MAX_SEGMENTS * SEGMENT_SAMPLES == 60 * SAMPLE_RATE_HZ


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"no weights"),
        lambda file: torch.save(torch.ones(3), file),
        lambda file: torch.save({"state": [1]}, file),
        lambda file: torch.save({"state": {}}, file),
        lambda file: torch.save({"state": _draw_weights() | {FIRST: torch.ones(2)}}, file),
    ],
    ids=["text", "a tensor", "a list", "nothing", "another shape"],
)
def test_another_file_is_refused_in_a_line(tmp_path, damage):
    file = tmp_path / "weights.pth"
    damage(file)
    expected = f"^cdpam={re.escape(str(file))}; must be the weights of the package cdpam; .*anew$"
    with pytest.raises(ValueError, match=expected):
        load_cdpam(file, torch.device("cpu"))
