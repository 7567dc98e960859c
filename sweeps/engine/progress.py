"""The live table of a sweep: one line for each report and each ending, readable in any log."""

from collections.abc import Callable, Mapping
from typing import Any

from sweeps.engine.outcomes import TrialRecord, gain_percent
from trainer.journal import Row

_LINES_BETWEEN_HEADERS = 25


class ProgressTable:
    """Shows trial, what is varied, step, validation, gain over do-nothing and outcome."""

    def __init__(self, do_nothing: float, *, show: Callable[[str], None]) -> None:
        self._do_nothing = do_nothing
        self._show = show
        self._numbers: dict[str, int] = {}
        self._lines = 0

    def row(self, record: TrialRecord, row: Row) -> None:
        """Show a report of a running trial."""
        self._line(record, record.last_value, "")

    def ended(self, record: TrialRecord) -> None:
        """Show how a trial ended, and its best validation where that was not the last."""
        note = f": {record.error}" if record.error and record.outcome != "stopped" else ""
        source = f" (taken over from {record.taken_over_from})" if record.taken_over_from else ""
        is_best_last = record.value == record.last_value
        best = "" if is_best_last else f", best {format_number(record.value)}"
        self._line(record, record.last_value, record.outcome + best + note + source)

    def _line(self, record: TrialRecord, value: float | None, outcome: str) -> None:
        number = self._numbers.setdefault(record.fingerprint, len(self._numbers) + 1)
        varied = " ".join(record.notes.values()) or format_params(record.params)
        if self._lines % _LINES_BETWEEN_HEADERS == 0:
            self._show(_columns("trial", "varied", "step", "validation", "gain", len(varied)))
        self._lines += 1
        gain = gain_percent(value, self._do_nothing)
        self._show(
            _columns(
                f"{number:>3} {record.fingerprint[:6]}",
                varied,
                str(record.step),
                format_number(value),
                "-" if gain is None else f"{gain:+.1f} %",
                len(varied),
            )
            + f"  {outcome}".rstrip()
        )


def format_params(params: Mapping[str, Any]) -> str:
    """Return varied fields in one line, by the last part of their names."""
    return " ".join(f"{k.rsplit('.', 1)[-1]}={format_varied(v)}" for k, v in params.items())


def format_varied(value: object) -> str:
    """Return a varied value at a width that hardly varies."""
    if isinstance(value, float):
        return f"{value:.2e}" if abs(value) < 0.01 else f"{value:.4f}"
    return str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)


def format_number(value: float | None) -> str:
    """Return a score with four decimals, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def _columns(trial: str, varied: str, step: str, value: str, gain: str, width: int) -> str:
    return f"{trial:<10}  {varied:<{width}}  {step:>6}  {value:>10}  {gain:>8}"
