"""The journal of a trial: `metrics.jsonl`, one row a report, appended and flushed.

Rows hold their own time stamps: whoever ships them elsewhere twice ships the same rows twice.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

Row = dict[str, Any]
"""Names to numbers; `train_losses` to the loss of each step since the row before."""

FILE_NAME = "metrics.jsonl"

MEASURED_ONLY = frozenset(
    {"time_ms", "seconds", "steps_per_second", "data_wait_share", "peak_memory_bytes"}
)
"""What a row says of the machine's speed and not of the training: never equal twice."""


class Journal:
    """The rows so far, in memory and, where there is a folder, on disk."""

    def __init__(self, folder: Path | None, rows: Iterable[Row] = ()) -> None:
        """Begin with `rows`; whatever else the file held was never covered by a checkpoint."""
        self.rows = list(rows)
        self._path = None if folder is None else folder / FILE_NAME
        if self._path is not None:
            _replace_text(self._path, "".join(_line(row) for row in self.rows))

    def append(self, row: Row) -> None:
        """Add a row, on disk before this returns."""
        self.rows.append(row)
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())


def read_journal(folder: Path) -> list[Row]:
    """Return the rows of a trial's folder; a half-written last line is not one yet.

    Raises ValueError naming the file and the line when one is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return [_parse(line, source=f"{path}, line {n}") for n, line in enumerate(whole, start=1)]


def _parse(line: bytes, *, source: str) -> Row:
    try:
        row = json.loads(line)
        numbers = [value for name, value in row.items() if name != "train_losses"]
        numbers += row.get("train_losses", [])
        is_row = type(row["step"]) is int and all(type(n) in (int, float) for n in numbers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"journal={source}; must be a row of numbers with a step") from error
    if not is_row:
        raise ValueError(f"journal={source}; must be a row of numbers with a step")
    return cast("Row", row)


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
