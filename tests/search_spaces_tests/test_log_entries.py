"""The log as data: each entry is a run of the trainer, and says what the log says."""

import re
from pathlib import Path

import pytest

from search_spaces.budget import parameters
from search_spaces.log_entries import ENTRIES, NEVER_TOLD
from search_spaces.research_log import log_said
from trainer.config import TrainConfig
from trainer.sizes import SIZES

BY_NUMBER = {entry.number: entry for entry in ENTRIES}
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.label)

LEVERS = {
    "shape": ("model.channels", "model.blocks", "model.factors"),
    "family": ("model.family",),
    "kernel": ("model.kernel_size",),
    "output": ("model.output",),
    "loss": tuple(
        f"loss.{name}" for name in "stft mel l1 cdpam dac dac_blocks dac_features".split()
    ),
    "optimizer": tuple(f"optimizer.{name}" for name in "name lr adamw_lr momentum".split()),
    "clipping": ("optimizer.clip_norm",),
    "clip": ("data.clip_samples",),
    "batch": ("data.batch_size",),
}
MOVED_MORE_THAN_ONE = {
    19: {"loss", "clip", "batch"},  # "still too much memory, 1/2 batch size"
    23: {"family", "shape", "clip"},  # another kind of net; the clip's length is a stand-in
    32: {"loss", "clip"},  # "destroyed memory"
}
MOVED_NONE = {20}  # the rate that cdpam was given, which is always right here


def moved(entry):
    before = BY_NUMBER[entry.parent].fields
    names = {n for n in before | entry.fields if before.get(n) != entry.fields.get(n)}
    assert names <= {name for lever in LEVERS.values() for name in lever}
    return {lever for lever, fields in LEVERS.items() if names & set(fields)}


def test_the_runs_are_17_to_43_without_a_gap_and_two_bear_no_label():
    assert [entry.number for entry in ENTRIES] == list(range(17, 44))
    assert [entry.number for entry in ENTRIES if not entry.is_labelled] == [21, 26]


@pytest.mark.parametrize("size", SIZES)
@each_entry
def test_a_run_is_a_configuration_and_decides_all_that_sizes_differ_in(entry, size):
    """So that a run is the same configuration whatever it is laid over, but for its budget."""
    config = TrainConfig.from_fields({**SIZES[size], **entry.fields})
    alone = TrainConfig.from_fields(entry.fields)
    assert (config.model, config.loss, config.optimizer, config.data) == (
        alone.model,
        alone.loss,
        alone.optimizer,
        alone.data,
    )


def test_the_trainers_defaults_are_output27():
    assert TrainConfig.from_fields(BY_NUMBER[27].fields) == TrainConfig()


@pytest.mark.parametrize("entry", ENTRIES[1:], ids=lambda entry: entry.label)
def test_a_run_has_an_earlier_parent_and_moves_one_lever(entry):
    assert 17 <= entry.parent < entry.number
    levers = moved(entry)
    if entry.number in MOVED_MORE_THAN_ONE:
        assert levers == MOVED_MORE_THAN_ONE[entry.number]
    else:
        assert len(levers) == (0 if entry.number in MOVED_NONE else 1), levers


@each_entry
def test_what_is_unknown_is_a_field_that_has_a_stand_in(entry):
    trained = TrainConfig.from_fields(entry.fields).to_fields()
    assert entry.unknown <= trained.keys()
    assert entry.unknown - {"optimizer.momentum"} <= entry.fields.keys()
    assert not set(NEVER_TOLD) & entry.fields.keys()


def test_what_the_log_tells_is_not_marked_unknown():
    rates = {"optimizer.lr", "optimizer.adamw_lr"}
    assert [n for n, e in BY_NUMBER.items() if not rates & e.unknown] == [
        25,
        26,
        27,
        28,
        *range(38, 44),
    ]
    momentum = [n for n, entry in BY_NUMBER.items() if "optimizer.momentum" not in entry.unknown]
    assert momentum == list(range(38, 44))
    assert [n for n, e in BY_NUMBER.items() if "data.clip_samples" in e.unknown] == [
        21,
        *range(23, 31),
    ]
    assert [n for n, e in BY_NUMBER.items() if "model.kernel_size" in e.unknown] == [*range(17, 23)]
    assert [n for n, e in BY_NUMBER.items() if "model.blocks" in e.unknown] == [
        *range(17, 23),
        *range(31, 44),
    ]


def field_of_each(name):
    return {number: entry.fields.get(name) for number, entry in BY_NUMBER.items()}


def test_rates_are_the_logs():
    lr, adamw = field_of_each("optimizer.lr"), field_of_each("optimizer.adamw_lr")
    assert {n: (lr[n], adamw[n]) for n in range(25, 29)} == {
        25: (2e-3, 3e-4),
        26: (1e-3, 1e-4),
        27: (5e-3, 5e-4),
        28: (1e-2, 1e-3),
    }
    assert [lr[n] for n in range(38, 44)] == [1e-3, 3e-4, 5e-4, 1e-4, 3e-4, 3e-4]
    assert [adamw[n] for n in range(38, 44)] == [None] * 6
    momentum = field_of_each("optimizer.momentum")
    assert [momentum[n] for n in range(38, 44)] == [0.9, 0.9, 0.9, 0.9, 0.8, 0.95]


def test_losses_are_the_logs():
    def terms(entry):
        return set(TrainConfig.from_fields(entry.fields).loss.weights)

    found = {entry.number: terms(entry) for entry in ENTRIES}
    stft, cdpam, dac, mel = {"stft"}, {"cdpam"}, {"dac"}, {"mel"}
    assert [found[n] for n in range(17, 23)] == [stft, {"l1"}, cdpam, cdpam, cdpam, stft]
    assert all(found[n] == stft for n in range(23, 32))
    assert [found[n] for n in range(32, 36)] == [dac, dac, dac, {"stft", "dac"}]
    assert all(found[n] == mel for n in range(36, 44))
    blocks, features = field_of_each("loss.dac_blocks"), field_of_each("loss.dac_features")
    assert [(blocks[n], features[n]) for n in range(32, 37)] == [
        (1, "blocks"),
        (2, "blocks"),
        (1, "units"),
        (1, "units"),
        (None, None),
    ]


def test_clips_and_batches_are_the_logs():
    clips, batches = field_of_each("data.clip_samples"), field_of_each("data.batch_size")
    assert [clips[n] for n in (17, 18, 19, 20, 22)] == [65_024, 65_024, 32_256, 32_256, 48_640]
    assert [clips[n] for n in range(31, 44)] == [49_152, *[16_384] * 5, *[49_152] * 7]
    assert {n for n, batch in batches.items() if batch != 32} == {19, 20, 21}
    assert batches[19] == 16
    assert {n for n, norm in field_of_each("optimizer.clip_norm").items() if norm} == set(
        range(31, 44)
    )


@pytest.mark.parametrize(("number", "tolerance"), [(23, 0.01), (27, 0.05), (30, 0.01)])
def test_a_net_has_the_parameters_that_the_log_counted(number, tolerance):
    """Its "~22M" of output27 are 22.9 M here, as design.md allows."""
    entry = BY_NUMBER[number]
    counted = parameters(TrainConfig.from_fields(entry.fields).to_fields())
    assert counted == pytest.approx(entry.observed["parameters"], rel=tolerance)


def test_numbers_are_the_logs():
    observed = {entry.number: dict(entry.observed) for entry in ENTRIES}
    assert (observed[23]["stft"], observed[23]["step"]) == (0.5153, 10_000)
    assert observed[23]["stft of the spectrogram net"] == 0.491
    assert (observed[27]["stft"], observed[27]["step"]) == (0.508, 5_000)
    memory = {n: values["memory"] for n, values in observed.items() if "memory" in values}
    assert memory == {25: "<5 GB", 29: "<6 GB", 32: "<12 GB"}
    assert observed[32]["memory before the cuts"] == ">24 GB"
    assert observed[35] == {"stft over dac": 100}


def test_runs_without_a_verdict_are_those_the_log_leaves_without():
    assert [entry.number for entry in ENTRIES if not entry.verdict] == [17, 37, 43]


def test_the_docs_table_is_the_data():
    page = (Path(__file__).parents[2] / "docs" / "research-log.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| \d", line)]
    assert rows == [
        [
            f"{entry.number}{'' if entry.is_labelled else ' *'}",
            str(entry.parent or "–"),
            entry.change,
            log_said(entry) or "–",
        ]
        for entry in ENTRIES
    ]
