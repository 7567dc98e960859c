import dataclasses
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from trainer.batches import training_batch
from trainer.checkpoint import load_best, load_last
from trainer.config import METRIC, SAMPLE_RATE_HZ, TrainConfig
from trainer.damage import damage_clips, low_pass_targets
from trainer.data import open_data
from trainer.evaluate import ValidationSet, evaluate, score_do_nothing
from trainer.journal import MEASURED_ONLY, read_journal
from trainer.losses.spectral import stft_distance
from trainer.models import build_model
from trainer.record import read_record
from trainer.sizes import SIZES
from trainer.train import StopTraining, train
from trainer.training_run import Diverged, TrainingRun

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
METRICS = {"stft", "mel", "lsd_db", "si_sdr_db", "l1"}
FAMILIES = ("frames", "waveform")
TO_NOWHERE = {"optimizer.name": "adamw", "optimizer.lr": 1e-30}
"""What leaves a net that starts as the identity just that."""


def train_rows(config, **arguments):
    """Return the result and the rows reported."""
    rows = []
    return train(config, report=rows.append, **arguments), rows


def trained_part(rows):
    """Return rows without what they say of the machine's speed."""
    return [{k: v for k, v in row.items() if k not in MEASURED_ONLY} for row in rows]


def losses(rows):
    return [loss for row in rows for loss in row["train_losses"]]


def after_calls(count):
    """Return a should_stop that says yes when asked for the count-th time."""
    answers = iter([*[False] * (count - 1), True])
    return lambda: next(answers)


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


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


# Repeating, stopping, going on.


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_configuration_twice_gives_the_same_losses(tiny_config, family):
    config = tiny_config(model__family=family, optimizer__clip_norm=1.0)
    first, second = (train_rows(config)[1] for _ in range(2))
    assert trained_part(first) == trained_part(second)


def test_another_seed_gives_other_losses(tiny_config):
    first, second = (losses(train_rows(tiny_config(seed=seed))[1]) for seed in (0, 1))
    assert not set(first) & set(second)


STOPS = {"between reports": 3, "right after a report": 4, "after the first step": 1}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stopped_at", STOPS.values(), ids=STOPS)
def test_stopping_and_going_on_changes_nothing(tiny_config, tmp_path, family, stopped_at):
    config = tiny_config(model__family=family, steps=8, report_every=2, optimizer__clip_norm=5.0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, expected = train_rows(config, folder=whole)
    stopped, first = train_rows(config, folder=parts, should_stop=after_calls(stopped_at))
    assert (stopped.outcome, stopped.step) == ("interrupted", stopped_at)
    result, second = train_rows(config, folder=parts, resume_from=parts)
    assert (result.outcome, result.step) == ("finished", 8)
    assert losses(first + second) == losses(expected)
    assert trained_part(first + second) == trained_part(expected)
    assert read_journal(parts) == first + second  # without gap or doubling
    states = [load_last(f, fingerprint=config.fingerprint(fingerprint(f))) for f in (whole, parts)]
    assert same_tensors(states[0]["model"], states[1]["model"])
    assert same_tensors(load_best(whole), load_best(parts))


def fingerprint(folder):
    return read_record(folder).data_fingerprint


def test_a_report_that_has_seen_enough_stops_the_trial_and_it_may_go_on(tiny_config, tmp_path):
    config = tiny_config(steps=8)
    _, expected = train_rows(config)
    rows = []

    def report(row):
        rows.append(row)
        if row["step"] == 4:
            raise StopTraining("rank 7 of 8")

    stopped = train(config, report=report, folder=tmp_path)
    assert (stopped.outcome, stopped.step, stopped.reason) == ("stopped", 4, "rank 7 of 8")
    assert stopped.last_value == rows[-1][METRIC]
    train(config, report=rows.append, folder=tmp_path, resume_from=tmp_path)
    assert trained_part(rows) == trained_part(expected)
    assert read_journal(tmp_path) == rows


def test_a_report_that_fails_is_not_swallowed_and_its_row_is_kept(tiny_config, tmp_path):
    def report(row):
        raise ConnectionError("nobody listens")

    with pytest.raises(ConnectionError, match="nobody listens"):
        train(tiny_config(), report=report, folder=tmp_path)
    assert [row["step"] for row in read_journal(tmp_path)] == [2]


def test_going_on_elsewhere_takes_the_whole_journal_along(tiny_config, tmp_path):
    config = tiny_config(steps=6)
    here, there = tmp_path / "here", tmp_path / "there"
    _, first = train_rows(config, folder=here, should_stop=after_calls(3))
    shutil.move(here / "last.pt", tmp_path / "carried.pt")
    result, second = train_rows(config, folder=there, resume_from=tmp_path / "carried.pt")
    assert read_journal(there) == first + second
    assert result.value == min(row[METRIC] for row in first + second)
    assert [e["from_step"] for e in read_record(there).environments] == [3]


def test_a_row_after_the_checkpoint_is_not_doubled(tiny_config, tmp_path):
    """As when the machine went down between the row and its checkpoint."""
    config = tiny_config(steps=6)
    train_rows(config, folder=tmp_path, should_stop=after_calls(3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "stft": 0.0}\n{"step": 6, "st')
    train_rows(config, folder=tmp_path, resume_from=tmp_path)
    assert [row["step"] for row in read_journal(tmp_path)] == [2, 4, 6]


def test_the_time_before_an_interruption_counts(tiny_config, tmp_path):
    config = tiny_config(steps=4)
    train_rows(config, folder=tmp_path, should_stop=after_calls(3))
    data_fingerprint = read_record(tmp_path).data_fingerprint
    state = load_last(tmp_path, fingerprint=config.fingerprint(data_fingerprint))
    assert state["seconds"] > 0
    state["seconds"] = 1000.0
    torch.save(state, tmp_path / "last.pt")
    _, (row,) = train_rows(config, folder=tmp_path, resume_from=tmp_path)
    assert 1000 < row["seconds"] < 1100


def test_a_finished_trial_that_goes_on_has_nothing_to_do(tiny_config, tmp_path):
    first, rows = train_rows(tiny_config(), folder=tmp_path)
    again, none = train_rows(tiny_config(), folder=tmp_path, resume_from=tmp_path)
    assert none == []
    assert again == first
    assert read_journal(tmp_path) == rows


def test_being_asked_to_stop_at_the_last_step_is_too_late(tiny_config):
    result, _ = train_rows(tiny_config(steps=4), should_stop=after_calls(4))
    assert result.outcome == "finished"


def test_the_checkpoint_of_another_configuration_is_refused(tiny_config, tmp_path):
    train_rows(tiny_config(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"^checkpoint=.* of trial \w{16}; must be of trial"):
        train_rows(tiny_config(optimizer__lr=1e-4), resume_from=tmp_path)


# Divergence: real, by a rate that no float32 can bear.

DIVERGING = {
    # The head moves first: step 1 still validates, step 2 has an infinite gradient.
    "gradient": ({"optimizer__lr": 1e30}, 2, [1], r"^loss=.*, gradient norm=inf at step 2$"),
    "validation": ({"optimizer__lr": 1e10}, 2, [1], r"^validation stft=nan at step 2$"),
    "first": (
        {"optimizer__lr": 1e30, "model__family": "waveform"},
        1,
        [],
        r"^validation stft=(inf|nan) at step 1$",
    ),
    "loss": (
        {"optimizer__lr": 1e30, "model__family": "waveform", "report_every": 9},
        2,
        [],
        r"^loss=(inf|nan), gradient norm=.* at step 2$",
    ),
}


@pytest.mark.parametrize("kind", DIVERGING)
def test_what_is_not_finite_ends_the_trial_as_diverged(tiny_config, tmp_path, kind):
    changes, step, reported, reason = DIVERGING[kind]
    config = tiny_config(**{"steps": 9, "report_every": 1} | changes)
    result, rows = train_rows(config, folder=tmp_path)
    assert (result.outcome, result.step) == ("diverged", step)
    assert re.search(reason, result.reason)
    assert [row["step"] for row in rows] == reported
    assert read_journal(tmp_path) == rows
    text = (tmp_path / "metrics.jsonl").read_text()
    json.loads(f"[{text.replace(chr(10), ',')}0]", parse_constant=lambda name: pytest.fail(name))
    assert result.value == (rows[0][METRIC] if rows else None)


def test_a_trial_that_diverges_with_its_last_step_is_not_finished(tiny_config):
    result, rows = train_rows(tiny_config(steps=2, report_every=1, optimizer__lr=1e10))
    assert result.outcome == "diverged"
    assert [row["step"] for row in rows] == [1]


class BrokenTerm:
    """A term that only informs, and is no number on a batch's second clip."""

    names = ("broken",)

    def __init__(self, value):
        self._value = value

    def __call__(self, estimate, target):
        values = torch.ones(len(estimate))
        values[1:] = self._value
        return {"broken": values}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_term_that_only_informs_may_be_no_number(tiny_config, tmp_path, caplog, value):
    config = tiny_config()
    train_rows(config, folder=tmp_path / "without")
    run = TrainingRun.begin(config, folder=tmp_path / "with", commit="abc", resume_from=None)
    run._learner.mix.groups.append(BrokenTerm(value))
    with run.batches() as batches:
        for clips, shifts in batches:
            run.update(clips, shifts)
            if run.is_report_due:
                run.keep(run.validate())
    rows = read_journal(tmp_path / "with")  # takes finite numbers only
    assert trained_part(rows) == trained_part(read_journal(tmp_path / "without"))
    assert [row["step"] for row in rows] == [2, 4]
    left_out = [text for text in caplog.messages if text.startswith("train_broken=")]
    assert left_out == [f"train_broken={value} at step 2: left out"]  # once
    again = TrainingRun.begin(
        config, folder=tmp_path / "with", commit="abc", resume_from=tmp_path / "with"
    )
    assert again.step == 4


def test_a_term_that_is_trained_on_must_be_a_number(tiny_config, tmp_path):
    """Not even while its gradient is finite."""
    config = tiny_config(steps=4, report_every=1)
    run = TrainingRun.begin(config, folder=tmp_path, commit="abc", resume_from=None)
    (group,) = run._learner.mix.groups
    run._learner.mix.groups[0] = AtInfinity(group)
    with run.batches() as batches:
        clips, shifts = next(batches)
        with pytest.raises(Diverged, match=r"^loss=inf, gradient norm=\d\S* at step 1$"):
            run.update(clips, shifts)


class AtInfinity:
    """A group of terms whose values lie infinitely high."""

    def __init__(self, group):
        self.names = group.names
        self._group = group

    def __call__(self, estimate, target):
        return {name: value + math.inf for name, value in self._group(estimate, target).items()}


def test_silent_batches_do_not_diverge(tmp_path, tiny_config, shared_cache):
    """Recordings that are silent but for a click: most clips drawn are silence."""
    for number in range(6):
        samples = np.zeros(6 * SAMPLE_RATE_HZ)
        samples[100 : 100 + 3000] = np.random.default_rng(number).normal(0, 0.3, 3000)
        soundfile.write(tmp_path / f"{number}.wav", samples, SAMPLE_RATE_HZ, "PCM_16")
    config = tiny_config(data__path=str(tmp_path), steps=6, optimizer__clip_norm=1.0)
    result, rows = train_rows(config)
    assert result.outcome == "finished"
    assert all(np.isfinite(row["train_loss"]) for row in rows)


# What is checked and recorded before step 0.


def test_the_record_is_written_before_step_0(tiny_config, tmp_path, data):
    config = tiny_config()
    run = TrainingRun.begin(config, folder=tmp_path, commit="abc", resume_from=None)
    record = read_record(tmp_path)
    assert run.step == 0
    assert (record.config, record.commit) == (config, "abc")
    assert record.data_fingerprint == data.fingerprint
    (environment,) = record.environments
    assert (environment["device_kind"], environment["threads"]) == ("cpu", 1)


def test_other_data_than_the_configuration_names_is_refused_by_name(tiny_config, data):
    named = tiny_config(data__fingerprint=data.fingerprint, steps=1)
    assert train_rows(named)[0].outcome == "finished"
    other = tiny_config(data__fingerprint="0" * 16)
    expected = rf"^data\.path=.* holds data {data.fingerprint}; must be data {'0' * 16}$"
    with pytest.raises(ValueError, match=expected):
        train_rows(other)


def write_recordings(folder, seeds):
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, SAMPLE_RATE_HZ)
        soundfile.write(folder / f"{seed}.wav", samples, SAMPLE_RATE_HZ, "PCM_16")


def replace_one(music):
    shutil.copy(music / "0.wav", music / "other.wav")
    soundfile.write(music / "0.wav", np.full(SAMPLE_RATE_HZ, 0.1), SAMPLE_RATE_HZ, "PCM_16")


REPLACED = {
    "replaced": replace_one,
    "removed": lambda music: (music / "0.wav").unlink(),
    "truncated": lambda music: os.truncate(music / "0.wav", 60_000),
    "emptied": lambda music: os.truncate(music / "0.wav", 0),
    "one more": lambda music: write_recordings(music, [9]),
}


@pytest.mark.parametrize("change", REPLACED.values(), ids=REPLACED)
def test_recordings_changed_in_mid_run_change_no_number_and_are_not_gone_on_with(
    tiny_config, tmp_path, change
):
    music = tmp_path / "music"
    write_recordings(music, range(4))
    config = tiny_config(data__path=str(music), steps=6)
    _, expected = train_rows(config)
    seen, folder = [], tmp_path / "trial"

    def report(row):
        seen.append(row)
        if row["step"] == 2:
            change(music)

    train(config, report=report, folder=folder)
    assert trained_part(seen) == trained_part(expected)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(
        ValueError, match=r"must be of trial \w{16}: the configuration, the data or"
    ):
        train_rows(config, folder=folder, resume_from=folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_decoded_samples_written_over_in_mid_run_end_the_trial_with_one_line(tiny_config, tmp_path):
    write_recordings(tmp_path / "music", range(4))
    cache = tmp_path / "cache"
    config = tiny_config(data__path=str(tmp_path / "music"), data__cache=str(cache), steps=8)

    def report(row):
        (samples,) = cache.glob("*/samples.f32")
        samples.write_bytes(bytes(samples.stat().st_size))

    with pytest.raises(ValueError, match=r"samples\.f32 must not change while it is in use$"):
        train(config, report=report, folder=tmp_path / "trial")
    # Decoded anew, it goes on: batches drawn ahead were drawn before.
    train_rows(config, folder=tmp_path / "trial", resume_from=tmp_path / "trial")
    assert trained_part(read_journal(tmp_path / "trial")) == trained_part(train_rows(config)[1])


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


@pytest.mark.slow
def test_the_demo_beats_doing_nothing_within_15_steps(shared_cache):
    fields = SIZES["demo"] | {"steps": 15, "report_every": 15, "device": "cpu"}
    config = TrainConfig.from_fields({**fields, "data.cache": str(shared_cache)})
    validation = ValidationSet.build(open_data("demo", shared_cache), config.validation, CPU)
    result, _ = train_rows(config)
    assert result.value < 0.98 * score_do_nothing(validation)[METRIC]


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
