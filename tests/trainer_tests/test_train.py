"""What a trial reports and validates; and that the same trains the same.

Stopping and going on is in test_going_on.py, what is not finite in test_divergence.py, recordings
and records in test_before_training.py.
"""

import dataclasses
import json
import statistics
import subprocess
import sys

import pytest
import torch
from tests_support.training import after_calls, losses, train_rows, trained_part

from trainer.batches import training_batch
from trainer.checkpoint import load_best
from trainer.config import METRIC
from trainer.damage import damage_clips, low_pass_targets
from trainer.evaluate import ValidationSet, evaluate
from trainer.journal import MEASURED_ONLY, read_journal
from trainer.losses.spectral import stft_distance
from trainer.models import build_model

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
METRICS = {"stft", "mel", "lsd_db", "si_sdr_db", "l1"}
FAMILIES = ("frames", "waveform")
TO_NOWHERE = {"optimizer.name": "adamw", "optimizer.lr": 1e-30}
"""What leaves a net that starts as the identity just that."""


# What a trial reports.


@pytest.mark.parametrize(
    ("steps", "report_every", "expected"),
    [(4, 2, [2, 4]), (5, 2, [2, 4, 5]), (3, 10, [3]), (1, 1, [1])],
)
def test_there_is_always_a_report_at_the_last_step(tiny_config, steps, report_every, expected):
    result, rows = train_rows(tiny_config(steps=steps, report_every=report_every))
    assert [row["step"] for row in rows] == expected
    assert (result.outcome, result.step, result.reason) == ("finished", steps, "")


def test_value_is_the_best_of_all_reports_and_last_value_stands_beside_it(tiny_config):
    config = tiny_config(steps=6, report_every=1, optimizer__lr=0.5)  # wavers
    result, rows = train_rows(config)
    values = [row[METRIC] for row in rows]
    assert min(values) < values[-1]
    assert (result.value, result.last_value) == (min(values), values[-1])


def test_a_row_holds_all_that_is_recorded(tiny_config):
    _, rows = train_rows(tiny_config(optimizer__lr=1e-3, optimizer__clip_norm=1e-6))
    training = {"train_loss", "train_losses", "grad_norm_median", "grad_norm_p99"}
    rest = {"step", "clipped_share", "lr", "adamw_lr", "train_stft", "gradient_stft"}
    assert all(row.keys() == METRICS | training | rest | MEASURED_ONLY for row in rows)
    for row in rows:
        assert len(row["train_losses"]) == 2
        assert row["train_loss"] == statistics.fmean(row["train_losses"]) == row["train_stft"]
        assert row["gradient_stft"] > 0
        assert 0 < row["grad_norm_median"] <= row["grad_norm_p99"]
        assert (row["lr"], row["adamw_lr"], row["clipped_share"]) == (1e-3, 1e-4, 1.0)
        assert row["steps_per_second"] > 0
        assert 0 <= row["data_wait_share"] <= 1
        assert row["peak_memory_bytes"] > 50e6  # torch alone
    assert rows[0]["seconds"] < rows[1]["seconds"] and rows[0]["time_ms"] <= rows[1]["time_ms"]


def test_what_is_not_clipped_is_not_counted_as_clipped(tiny_config):
    _, rows = train_rows(tiny_config())
    assert [row["clipped_share"] for row in rows] == [0.0, 0.0]


def test_half_of_the_steps_clipped_is_a_share_of_a_half(tiny_config):
    _, (row,) = train_rows(tiny_config(steps=2))
    limit = row["grad_norm_median"]  # between the two norms
    _, (row,) = train_rows(tiny_config(steps=2, optimizer__clip_norm=limit))
    assert row["clipped_share"] == 0.5


def test_the_first_loss_is_the_distance_of_the_damaged_batch_from_its_target(tiny_config, data):
    """The net starts as the identity; the batch is that of step 1."""
    config = tiny_config(model__family="waveform", seed=3, steps=1)
    samples, semitones = training_batch(
        data, clip_samples=4096, batch_size=2, shifts=config.damage.shifts, seed=3, step=1
    )
    clips, shifts = torch.from_numpy(samples), torch.from_numpy(semitones)
    damaged, target = damage_clips(clips, shifts), low_pass_targets(clips, shifts)
    _, rows = train_rows(config)
    assert losses(rows) == [stft_distance(damaged, target).mean().item()]


# Validation.


@pytest.mark.parametrize(
    "changes",
    [{"data__clip_samples": 8192}, {"data__batch_size": 1}, {"seed": 9}, {"damage__shifts": [7]}],
)
def test_validation_is_the_same_whatever_the_training_batches(tiny_config, data, changes):
    config = tiny_config(**TO_NOWHERE, **changes, steps=1)
    _, (row,) = train_rows(config)
    validation = ValidationSet.build(data, tiny_config().validation, CPU)
    identity = evaluate(lambda clips: clips, validation)
    # The net rounds as an STFT and its inverse do, in float32.
    assert {name: row[name] for name in METRICS} == pytest.approx(identity, rel=1e-4)
    _, (plain,) = train_rows(tiny_config(**TO_NOWHERE, steps=1))
    assert {name: row[name] for name in METRICS} == {name: plain[name] for name in METRICS}


def test_the_weights_kept_are_those_of_the_best_row(tiny_config, data, tmp_path):
    config = tiny_config(steps=6, report_every=1, optimizer__lr=0.5)
    result, rows = train_rows(config, folder=tmp_path)
    best = min(rows, key=lambda row: row[METRIC])
    assert best is not rows[-1]
    model = build_model(config.model)
    model.load_state_dict(load_best(tmp_path))
    scores = evaluate(model.eval(), ValidationSet.build(data, config.validation, CPU))
    assert scores == {name: best[name] for name in METRICS}
    assert scores[METRIC] == result.value


# Repeating.


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_configuration_twice_gives_the_same_losses(tiny_config, family):
    config = tiny_config(model__family=family, optimizer__clip_norm=1.0)
    first, second = (train_rows(config)[1] for _ in range(2))
    assert trained_part(first) == trained_part(second)


def test_another_seed_gives_other_losses(tiny_config):
    first, second = (losses(train_rows(tiny_config(seed=seed))[1]) for seed in (0, 1))
    assert not set(first) & set(second)


JUMPING_CLOCK = """
import itertools, json, sys, time
hours = itertools.cycle([0, -1, 5, -7, 2])
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + 3600 * next(hours)
time.time_ns = lambda: now_ns() + 3600 * 10**9 * next(hours)
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer.config import TrainConfig
from trainer.train import train
config = TrainConfig.from_fields(json.loads(sys.argv[1]))
folder, half = Path(sys.argv[2]), itertools.count()
train(config, report=lambda row: None, folder=folder, should_stop=lambda: next(half) == 4)
train(config, report=lambda row: None, folder=folder, resume_from=folder)
"""


@pytest.mark.slow
def test_a_clock_that_jumps_by_hours_changes_only_time_stamps(tiny_config, tmp_path):
    config = tiny_config(steps=8, report_every=1)
    fields = json.dumps(config.to_fields())
    command = [sys.executable, "-c", JUMPING_CLOCK, fields, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    rows = read_journal(tmp_path)
    stamps = [row["time_ms"] for row in rows]
    assert stamps != sorted(stamps)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert trained_part(rows) == trained_part(train_rows(config)[1])
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[-1] < 600
    assert all(0 < row["steps_per_second"] < 1e5 for row in rows)


def test_without_a_folder_nothing_is_written(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_rows(tiny_config(steps=2), should_stop=after_calls(1))
    assert list(tmp_path.iterdir()) == []


# Precision and compilation.


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_trains_and_differs_by_its_rounding(tiny_config, family):
    _, full = train_rows(tiny_config(model__family=family, model__output="direct"))
    result, half = train_rows(
        tiny_config(model__family=family, model__output="direct", precision="bf16")
    )
    assert result.outcome == "finished"
    assert losses(half) != losses(full)
    # Eight bits of mantissa: some tenths of a percent, over four steps.
    assert losses(half) == pytest.approx(losses(full), rel=0.05)


def test_with_bfloat16_only_the_net_is_in_bfloat16(tiny_config):
    """A net that is the identity, in whatever precision, scores what float32 scores."""
    config = tiny_config(**TO_NOWHERE, model__family="waveform", steps=1)
    rows = [train_rows(dataclasses.replace(config, precision=p))[1][0] for p in ("float32", "bf16")]
    # The identity adds 1e-30: what is left is float32 rounding, and none was seen.
    for name in METRICS:
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu_the_same_configuration_twice_gives_the_same_losses(tiny_config, family):
    config = tiny_config(model__family=family, device="cuda")
    first, second = (train_rows(config)[1] for _ in range(2))
    assert trained_part(first) == trained_part(second)


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("ray", "optuna", "mlflow"):
    sys.modules[name] = None  # importing it raises ImportError
import trainer
names = [module.name for module in pkgutil.walk_packages(trainer.__path__, "trainer.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_the_trainer_needs_neither_ray_nor_optuna_nor_mlflow():
    command = [sys.executable, "-c", IMPORT_ALL]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(output) >= 18
