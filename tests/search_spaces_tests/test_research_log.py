"""The log's runs as a space: each at either size, and what a table says of it."""

import json
import math

import optuna
import pytest

from search_spaces.budget import parameters
from search_spaces.log_entries import ENTRIES
from search_spaces.research_log import annotate, at_size, entries_of, log_said, space_for
from search_spaces.space import Shared
from trainer.config import TrainConfig
from trainer.sizes import SIZES, fields_of_size

BY_NUMBER = {entry.number: entry for entry in ENTRIES}
each_size = pytest.mark.parametrize("size", SIZES)


def runs(size, *absent):
    """Return the fields of each run of the space by its label."""
    space = space_for(Shared(size=size, fields={}, absent_terms=frozenset(absent)))
    return {
        point["run"]: space.suggest(optuna.trial.FixedTrial(dict(point)))
        for point in space.known_points
    }


@each_size
def test_the_space_has_every_run_once_and_19_with_20(size):
    labels = list(runs(size))
    assert labels[:3] == ["output17", "output18", "output19 = output20"]
    assert " = ".join(labels).split(" = ") == [e.label for e in ENTRIES]
    assert len(labels) == 26


@each_size
def test_runs_whose_loss_is_absent_are_left_out(size):
    missing = runs(size).keys() - runs(size, "cdpam", "dac", "encodec").keys()
    assert missing == {
        "output19 = output20",
        *(f"output{number}" for number in (21, 32, 33, 34, 35)),
    }


@each_size
def test_a_trials_table_shows_its_run_and_what_the_log_said(size):
    found = {
        label: annotate(json.loads(json.dumps(fields))) for label, fields in runs(size).items()
    }
    assert {label: notes["run"] for label, notes in found.items()} == {n: n for n in found}
    assert found["output27"]["log said"] == (
        "much better, beating even the spectrogram net; 0.508 at step 5000"
    )
    both = found["output19 = output20"]["log said"]
    assert both == f"{log_said(BY_NUMBER[19])} / {log_said(BY_NUMBER[20])}"
    assert found["output43"]["log said"] == ""


def test_fields_that_are_no_runs_have_no_note():
    assert entries_of({"optimizer.lr": 1e-3}) == ()
    assert annotate({"optimizer.lr": 1e-3}) == {}


def _size_of(entry, size):
    fields = at_size(entry, size)
    config = TrainConfig.from_fields(fields)
    return {
        "parameters": parameters(config.to_fields()),
        "blocks": sum(config.model.blocks),
        "clip": config.data.clip_samples,
        "batch": config.data.batch_size,
    }


@pytest.mark.parametrize("what", ["parameters", "blocks", "clip", "batch"])
def test_what_is_larger_in_the_log_is_larger_at_the_demos_size(what):
    families = {entry.fields["model.family"] for entry in ENTRIES}
    for family in families:
        same = [entry for entry in ENTRIES if entry.fields["model.family"] == family]
        sizes = [(_size_of(e, "log")[what], _size_of(e, "demo")[what]) for e in same]
        by_log = sorted(set(sizes))
        assert [small for _, small in by_log] == sorted({small for _, small in by_log})


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.label)
def test_a_run_of_the_demos_size_is_small(entry):
    fields = at_size(entry, "demo")
    assert parameters(TrainConfig.from_fields(fields).to_fields()) < 600_000
    assert max(fields["model.blocks"]) <= 2
    assert 2 <= fields["data.batch_size"] <= 4
    assert 4096 <= fields["data.clip_samples"] <= 65_024 / 3
    assert fields["data.clip_samples"] % math.prod(fields["model.factors"]) == 0
    kept = set(entry.fields) - {
        "model.channels",
        "model.blocks",
        "data.clip_samples",
        "data.batch_size",
    }
    assert {name: fields[name] for name in kept} == {name: entry.fields[name] for name in kept}


@pytest.mark.parametrize("number", [17, 27])
def test_the_nets_of_the_demos_size_are_those_of_its_runs(number):
    run = at_size(BY_NUMBER[number], "demo")
    size = fields_of_size("demo", {"model.family": run["model.family"]})
    model = TrainConfig.from_fields(size).model
    for name in ("channels", "blocks", "factors", "kernel_size"):
        assert getattr(model, name) == run[f"model.{name}"]
