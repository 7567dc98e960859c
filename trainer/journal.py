"""The journal of a trial: `metrics.jsonl`, one row a report, appended and flushed.

Rows hold their own time stamps, for information only: whoever ships them elsewhere twice ships the
same rows twice. Their order is that of the steps.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from trainer.whole_file import replace_whole

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
        """Begin with `rows`; whatever else the file held was never covered by a checkpoint.

        Raises OSError where the file cannot be written.
        """
        self.rows = list(rows)
        self._path = None if folder is None else folder / FILE_NAME
        self._rows_written, self._bytes_written = 0, 0
        if self._path is not None:
            self._rewrite(self._path)

    @property
    def is_written(self) -> bool:
        """Whether every row is on disk, where there is a folder."""
        return self._path is None or self._rows_written == len(self.rows)

    def append(self, row: Row) -> None:
        """Add a row, on disk before this returns.

        Raises OSError where it cannot be written: it is in memory then, and `write` tries again.
        """
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Write the rows that are not on disk yet, in order. Raises OSError where it cannot."""
        if self._path is None or self.is_written:
            return
        if not self._path.is_file() or self._path.stat().st_size < self._bytes_written:
            self._rewrite(self._path)  # somebody cut it short
            return
        content = _lines(self.rows[self._rows_written :])
        with self._path.open("r+b") as file:
            file.truncate(self._bytes_written)  # without what a full disk left of a line
            file.seek(self._bytes_written)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._note_written(self._bytes_written + len(content))

    def _rewrite(self, path: Path) -> None:
        content = _lines(self.rows)
        replace_whole(path, lambda file: file.write(content))
        self._note_written(len(content))

    def _note_written(self, size: int) -> None:
        self._rows_written, self._bytes_written = len(self.rows), size


def read_journal(folder: Path) -> list[Row]:
    """Return the rows of a trial's folder; a half-written last line is not one yet.

    Raises ValueError naming the file and the line when one is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    return [_parse(line, source=f"{path}, line {n}") for n, line in enumerate(whole, start=1)]


def is_row(row: object) -> bool:
    """Return whether this is names with finite numbers, `step` a whole one, and `train_losses` a
    list of such numbers."""
    if not isinstance(row, dict) or type(row.get("step")) is not int or row["step"] < 0:
        return False
    losses = row.get("train_losses", [])
    numbers = [value for name, value in row.items() if name != "train_losses"]
    return isinstance(losses, list) and all(_is_number(n) for n in (*numbers, *losses))


def _parse(line: bytes, *, source: str) -> Row:
    problem = f"journal={source}; must be a row of finite numbers with a step"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(problem) from error
    if not is_row(row):
        raise ValueError(problem)
    return cast("Row", row)


def _is_number(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and math.isfinite(value)


def _lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
