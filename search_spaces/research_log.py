"""The research log's runs again: which of them is trained is all that varies.

At the demo's size each net, clip and batch is small, in proportion, and still the larger where the
log's was.
"""

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from search_spaces.log_entries import ENTRIES, Entry
from search_spaces.space import LOG, SearchSpace, Shared, Trial

Fields = dict[str, object]

_FOREIGN = ("cdpam", "dac")
_NARROWER, _NARROWEST = 8, 4
_SHORTER, _SMALLER_BATCH, _GRID_SAMPLES = 3, 8, 512


def space_for(shared: Shared) -> SearchSpace:
    """Return the runs whose losses are there, at the size of the sweep."""
    absent = tuple(term for term in _FOREIGN if term in shared.absent_terms)
    runs = _runs(shared.size, absent)
    return SearchSpace(
        suggest=functools.partial(_choose, runs=runs),
        known_points=tuple({"run": label} for label in runs),
        left_out=absent,
    )


def suggest(trial: Trial) -> Fields:
    """Choose a run at the log's size."""
    return space_for(LOG).suggest(trial)


def annotate(fields: Mapping[str, object]) -> Mapping[str, str]:
    """Return what a table shows of a trial of this space: which run it is, and what the log said.

    Nothing for fields that are no run's.
    """
    entries = entries_of(fields)
    if not entries:
        return {}
    return {"run": _label(entries), "log said": " / ".join(filter(None, map(log_said, entries)))}


def entries_of(fields: Mapping[str, object]) -> Sequence[Entry]:
    """Return the runs that have these fields, at either size: none, or one, or two alike."""
    return _by_fields().get(_key(fields), ())


def log_said(entry: Entry) -> str:
    """Return a run's verdict and validation in one line; empty where the log has neither."""
    said = [entry.verdict] if entry.verdict else []
    if "stft" in entry.observed:
        said.append(f"{entry.observed['stft']} at step {entry.observed['step']}")
    return "; ".join(said)


def at_size(entry: Entry, size: str) -> Fields:
    """Return a run's fields at a size: the log's own, or small enough for two cores."""
    return dict(entry.fields) if size == "log" else at_small_size(entry.fields)


def at_small_size(fields: Mapping[str, object]) -> Fields:
    """Return fields of a net an eighth as wide with half the blocks, on clips a third as long in
    batches an eighth as large. Factors and kernel, rates and losses stay."""
    stem, *widths = cast("Sequence[int]", fields["model.channels"])
    samples = cast("int", fields["data.clip_samples"])
    return {
        **fields,
        "model.channels": (stem, *(max(_NARROWEST, width // _NARROWER) for width in widths)),
        "model.blocks": tuple(
            math.ceil(count / 2) for count in cast("Sequence[int]", fields["model.blocks"])
        ),
        "data.clip_samples": samples // _SHORTER // _GRID_SAMPLES * _GRID_SAMPLES,
        "data.batch_size": cast("int", fields["data.batch_size"]) // _SMALLER_BATCH,
    }


def _choose(trial: Trial, *, runs: Mapping[str, Fields]) -> Fields:
    return dict(runs[trial.suggest_categorical("run", tuple(runs))])


def _runs(size: str, absent: Iterable[str]) -> dict[str, Fields]:
    """Return the fields of each run by its label. Runs that are alike have one label."""
    alike: dict[str, list[Entry]] = {}
    for entry in ENTRIES:
        if all(entry.fields[f"loss.{term}"] is None for term in absent):
            alike.setdefault(_key(entry.fields), []).append(entry)
    return {_label(entries): at_size(entries[0], size) for entries in alike.values()}


@functools.cache
def _by_fields() -> Mapping[str, Sequence[Entry]]:
    known: dict[str, list[Entry]] = {}
    for size in ("log", "demo"):
        for entry in ENTRIES:
            known.setdefault(_key(at_size(entry, size)), []).append(entry)
    return known


def _label(entries: Iterable[Entry]) -> str:
    return " = ".join(entry.label for entry in entries)


def _key(fields: Mapping[str, object]) -> str:
    """Return the same text for the same fields, those read back from a record included."""
    return json.dumps(dict(fields), sort_keys=True)


KNOWN_POINTS = space_for(LOG).known_points
"""All runs, in the log's order."""
