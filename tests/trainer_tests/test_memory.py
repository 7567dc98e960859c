import json
import os
import subprocess
import sys
import typing

import pytest
import torch

from trainer.memory import (
    ALLOCATOR,
    BACKWARD,
    CLIPS,
    GRADIENTS,
    HELD_BACK,
    LOSS,
    OPTIMIZER,
    PARAMETERS,
    PROCESS,
    RECORDINGS,
    VALIDATION,
    estimate_memory,
    measure_process,
)
from trainer.model_config import Family
from trainer.models import build_model, count_parameters

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
MB = 10**6
FAMILIES = typing.get_args(Family)
AROUND = {PROCESS, ALLOCATOR, RECORDINGS}
STFT = f"{LOSS}: stft"


@pytest.fixture
def estimate(tiny_config, data):
    """Return a function from changed fields to an estimate."""

    def make(**changes):
        # So much audio that a training step, not a validation, takes most.
        usual = {"data__batch_size": 16, "validation__clips": 1, "damage__shifts": [1]}
        config = tiny_config(**usual | changes)
        return estimate_memory(config, data, CPU, process_bytes=700 * MB)

    return make


def count(tiny_config, **changes):
    return count_parameters(build_model(tiny_config(**changes).model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_peak_is_the_sum_of_its_parts_largest_first(estimate, family):
    found = estimate(model__family=family)
    sizes = list(found.parts.values())
    assert found.peak_bytes == sum(sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert found.tensor_bytes == found.peak_bytes - sum(found.parts[name] for name in AROUND)


@pytest.mark.parametrize("name", ["adamw", "muon_adamw"])
def test_parameters_and_the_optimizer_s_state_take_what_they_are(estimate, tiny_config, name):
    parts = estimate(optimizer__name=name).parts
    values = 4 * count(tiny_config)
    assert parts[PARAMETERS] == values
    # AdamW keeps two values a weight, Muon one; and AdamW counts steps for each tensor.
    least = {"adamw": 2, "muon_adamw": 1}[name] * values
    assert least <= parts[OPTIMIZER] <= 2 * values + 4 * 20


def test_a_block_keeps_what_its_gradient_needs(estimate):
    """By hand: what is convolved, normed, widened (before and after GELU) and the sum, and of the
    norm the mean and deviation. The sum at the bottom is copied beside its skip and let go."""
    parts = estimate(model__family="waveform").parts
    for stage, width, stride, keeps_sum in ((0, 4, 4, 1), (1, 8, 8, 0)):
        rows = 16 * 4096 // stride
        kept = 4 * rows * (width * (1 + 1 + 4 + 4 + keeps_sum) + 2)
        assert parts[f"stages.{stage}.encode"] == kept


def test_the_net_grows_with_the_batch_and_the_weights_do_not(estimate):
    wide = {"model__channels": [256]}  # so that the worst moment is not the damage
    small, large = (estimate(**wide, data__batch_size=size).parts for size in (16, 32))
    for part in (CLIPS, "body.2"):
        assert large[part] == pytest.approx(2 * small[part], rel=0.01)  # constants do not grow
    assert (large[PARAMETERS], large[OPTIMIZER]) == (small[PARAMETERS], small[OPTIMIZER])


def test_the_loss_grows_with_the_clips_that_it_looks_at_at_once(estimate):
    few, many = (estimate(loss__clips_at_once=count).parts[STFT] for count in (8, 16))
    assert many == pytest.approx(2 * few, rel=0.05)  # gradients are there for all clips


def test_where_weights_are_most_the_peak_is_when_they_are_updated(estimate, tiny_config):
    wide = {"model__channels": [512], "data__batch_size": 1}
    parts = estimate(**wide).parts
    assert parts.get(STFT, 0) < MB
    # Nearly all of them: what comes and goes outweighs the gradients of the first layers.
    assert parts[GRADIENTS] == pytest.approx(4 * count(tiny_config, **wide), rel=0.05)
    assert parts[BACKWARD] > 0


def test_a_large_validation_is_the_peak(estimate):
    parts = estimate(data__batch_size=1, validation__clips=16).parts
    assert parts[VALIDATION] > parts[PARAMETERS]
    assert STFT not in parts and "body.2" not in parts


def test_malloc_holds_back_a_share_of_what_comes_and_goes(estimate):
    parts = estimate(model__channels=[512], data__batch_size=8).parts
    lasting = parts[PARAMETERS] + parts[OPTIMIZER]
    tensors = sum(size for name, size in parts.items() if name not in AROUND)
    assert lasting > 0.1 * tensors
    # Also the batch and the held-out clips last.
    assert parts[ALLOCATOR] == pytest.approx(HELD_BACK * (tensors - lasting), rel=0.05)


def test_recordings_count_as_far_as_they_are_read(estimate, data):
    few, many = (estimate(steps=n).parts[RECORDINGS] for n in (1, 10_000))
    held_out = 4 * 8192
    all_of_them = 4 * sum(r.samples for r in data.training) + held_out
    assert many == pytest.approx(all_of_them, rel=0.01)
    assert few == pytest.approx(held_out + 16 * 4 * 4096, rel=0.2)  # some overlap


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu_the_estimate_is_what_its_allocator_gives_out(tiny_config, data, family):
    from trainer.train import train

    config = tiny_config(model__family=family, data__batch_size=256, device="cuda")
    rows = []
    train(config, report=rows.append)
    measured = max(row["peak_memory_bytes"] for row in rows)
    found = estimate_memory(config, data, torch.device("cuda"), process_bytes=0)
    assert PROCESS not in found.parts
    assert found.peak_bytes == pytest.approx(measured, rel=0.2)


COMPARE = """
import json, sys, torch
from trainer.config import TrainConfig
from trainer.data import open_data
from trainer.memory import RECORDINGS, estimate_memory, measure_process
from trainer.train import train
torch.set_num_threads(1)
config = TrainConfig.from_fields(json.loads(sys.argv[1]))
data = open_data(config.data.path, config.data.cache)
process, rows = measure_process(config), []
train(config, report=rows.append)
found = estimate_memory(config, data, torch.device("cpu"), process_bytes=process)
peak = max(row["peak_memory_bytes"] for row in rows)
read = found.parts[RECORDINGS]
print(json.dumps([found.peak_bytes, peak, found.tensor_bytes, peak - process - read]))
"""

WIDE = {
    "waveform": {
        "model__family": "waveform",
        "model__channels": [1, 32],
        "model__blocks": [2],
        "model__factors": [4],
        "optimizer__name": "adamw",
        "data__batch_size": 10,
    },
    "frames": {"model__channels": [256], "data__batch_size": 24, "loss__clips_at_once": 24},
    "psgd": {
        "model__family": "frames",
        "model__channels": [512],
        "model__blocks": [2],
        "optimizer__name": "psgd",
        "data__batch_size": 16,
    },
}


GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""glibc, told to give back what is freed: resident is what is alive."""


def compare(config, environment):
    """Return what another process estimates and measures: of the whole, and of tensors alone."""
    command = [sys.executable, "-c", COMPARE, json.dumps(config.to_fields())]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WIDE)
def test_estimates_are_within_a_fifth_of_what_training_takes(tiny_config, kind):
    """More shapes are in tests/benchmarks/memory.py."""
    config = tiny_config(**WIDE[kind], data__clip_samples=16384, steps=2)
    estimated, measured, tensors, _ = compare(config, {})
    assert tensors > 250 * MB  # so much that the process alone is no good estimate
    assert estimated == pytest.approx(measured, rel=0.2)
    _, _, tensors, above = compare(config, GIVES_BACK)
    assert tensors == pytest.approx(above, rel=0.2)


@pytest.mark.slow
def test_the_tensors_of_a_net_in_two_dimensions_are_within_a_fifth(tiny_config):
    net = {"channels": [1, 16], "blocks": [1], "factors": [2], "family": "spectrogram"}
    named = {f"model__{name}": value for name, value in net.items()}
    config = tiny_config(**named, data__batch_size=16, data__clip_samples=16384, steps=2)
    _, _, tensors, above = compare(config, GIVES_BACK)
    assert tensors > 250 * MB
    assert tensors == pytest.approx(above, rel=0.2)


@pytest.mark.usefixtures("no_garbage")
def test_a_process_is_measured_with_all_that_training_loads(tiny_config):
    once = measure_process(tiny_config())
    again = measure_process(tiny_config(model__family="waveform", precision="bf16"))
    assert once > 400 * MB  # torch alone
    assert again == pytest.approx(once, abs=100 * MB)  # what is loaded is loaded
