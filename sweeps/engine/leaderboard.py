"""The leaderboard of a sweep: its trials by validation, and do-nothing among them."""

from typing import Any

from optuna.study import Study
from tabulate import tabulate

from sweeps.engine.outcomes import TrialRecord, gain_percent, rank
from sweeps.engine.progress import format_number, format_varied
from sweeps.engine.store import read_facts, read_run_ids
from sweeps.engine.study_records import read_records
from trainer.config import METRIC


def read_leaderboard(study: Study) -> dict[str, Any]:
    """Return a study's leaderboard as the contract of `leaderboard --json` has it."""
    facts = read_facts(study)
    do_nothing = facts["do_nothing"][METRIC]
    run_ids = read_run_ids(study)
    ranked = rank(read_records(study))
    return {
        "sweep": facts["sweep"],
        "study": study.study_name,
        "metric": METRIC,
        "do_nothing": do_nothing,
        "trials": [
            _entry(position, record, do_nothing, run_ids.get(record.fingerprint))
            for position, record in enumerate(ranked, start=1)
        ],
    }


def format_leaderboard(board: dict[str, Any]) -> str:
    """Return a leaderboard as a table, the do-nothing row where its score belongs.

    Stopped trials stand below finished ones whatever their score: they were judged earlier.
    """
    trials = board["trials"]
    varied = list(dict.fromkeys(name for trial in trials for name in _shown(trial)))
    header = ["rank", "trial", "outcome", "step", board["metric"], "last", "gain", "time"]
    header += [name.rsplit(".", 1)[-1] for name in varied]  # last, as there may be many
    rows = [_cells(trial, varied) for trial in trials]
    rows.insert(_beaten_by(trials, board["do_nothing"]), _do_nothing_cells(board, varied))
    texts = {name for trial in trials for name in trial["notes"]}
    table = tabulate(rows, header, disable_numparse=True, colalign=_alignment(header, texts))
    notes = [_verdict(board), *(_error_note(trial) for trial in trials if trial["error"])]
    return "\n".join([f"{board['study']}: lower {board['metric']} is better", table, *notes])


def _entry(
    position: int, record: TrialRecord, do_nothing: float, run_id: str | None
) -> dict[str, Any]:
    return {
        "fingerprint": record.fingerprint,
        "rank": position,
        "outcome": record.outcome,
        "step": record.step,
        "value": record.value,
        "last_value": record.last_value,
        "gain_percent": gain_percent(record.value, do_nothing),
        "parameters": record.parameters,
        "seconds": record.seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "params": record.params,
        "notes": record.notes,
        "mlflow_run_id": run_id,
        "error": record.error,
        "restarts": record.restarts,
        "taken_over_from": record.taken_over_from,
    }


def _cells(trial: dict[str, Any], varied: list[str]) -> list[str]:
    gain, seconds, shown = trial["gain_percent"], trial["seconds"], _shown(trial)
    return [
        str(trial["rank"]),
        trial["fingerprint"],
        trial["outcome"] + (" (taken over)" if trial["taken_over_from"] else ""),
        str(trial["step"]),
        format_number(trial["value"]),
        format_number(trial["last_value"]),
        "-" if gain is None else f"{gain:+.1f} %" + ("" if gain > 0 else " worse than nothing"),
        "-" if seconds is None else f"{seconds:.0f} s",
        *(format_varied(shown[name]) if name in shown else "-" for name in varied),
    ]


def _shown(trial: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that are a trial's own: what its sweep says of it, or what varied."""
    columns: dict[str, Any] = trial["notes"] or trial["params"]
    return columns


def _do_nothing_cells(board: dict[str, Any], varied: list[str]) -> list[str]:
    score = format_number(board["do_nothing"])
    return ["-", "do nothing", "", "", score, score, "0.0 %", "", *("" for _ in varied)]


def _beaten_by(trials: list[dict[str, Any]], do_nothing: float) -> int:
    """Return how many finished trials stand above do-nothing."""
    finished = (trial for trial in trials if trial["outcome"] == "finished")
    return sum(1 for trial in finished if trial["value"] < do_nothing)


def _verdict(board: dict[str, Any]) -> str:
    better = _beaten_by(board["trials"], board["do_nothing"])
    finished = sum(1 for trial in board["trials"] if trial["outcome"] == "finished")
    return f"{better} of {finished} finished trials are better than doing nothing"


def _error_note(trial: dict[str, Any]) -> str:
    return f"{trial['fingerprint']} {trial['outcome']}: {trial['error']}"


def _alignment(header: list[str], texts: set[str]) -> list[str]:
    return ["left" if name in {"trial", "outcome", *texts} else "right" for name in header]
