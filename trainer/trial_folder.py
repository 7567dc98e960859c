"""A trial's folder while it trains: its record, journal, best weights and checkpoints.

What a full disk does not take is held in memory, in order, and written at the next chance.
"""

import logging
from pathlib import Path

from torch import Tensor

from trainer.checkpoint import State, forget_unused, save_best, save_last
from trainer.journal import Journal, Row
from trainer.record import Record, keep_record

_log = logging.getLogger(__name__)


class TrialFolder:
    """What is kept of a trial on disk, as it goes on."""

    def __init__(
        self, folder: Path, record: Record, *, step: int, rows: list[Row], used: Path | None
    ) -> None:
        """Write the record and the rows up to `step`, 0 or that of the checkpoint `used`.

        Raises ValueError naming the folder where they cannot be written.
        """
        self._folder = folder
        self._best: tuple[dict[str, Tensor], int] | None = None
        """Weights, and their step, that are not on disk yet."""
        self._has_warned = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            forget_unused(folder, used=used)
            keep_record(folder, record, step=step)
            self.journal = Journal(folder, rows)
        except OSError as error:
            raise ValueError(self._describe(error, "record and journal")) from error

    def keep(self, state: State, *, best: dict[str, Tensor] | None = None, step: int) -> None:
        """Write the rows and the best weights that are not on disk yet, then the checkpoint.

        In this order: a checkpoint that knows of a best value without its weights is of no use.
        `best` are the weights of this step where none were better. What cannot be written is held,
        with one warning until all can be written again.
        """
        if best is not None:
            self._best = (best, step)
        try:
            self._write_results()
            save_last(self._folder, state)
            self._has_warned = False
        except OSError as error:
            self._warn_once(error)
            if best is not None and self._best is not None:  # training goes on with these tensors
                self._best = ({k: v.to("cpu", copy=True) for k, v in best.items()}, step)

    def close(self) -> None:
        """Raise ValueError naming the folder unless the rows and the best weights are on disk."""
        try:
            self._write_results()
        except OSError as error:
            raise ValueError(self._describe(error, "journal and best weights")) from error

    def _write_results(self) -> None:
        self.journal.write()
        if self._best is not None:
            weights, step = self._best
            save_best(self._folder, weights, step=step)
            self._best = None

    def _warn_once(self, error: OSError) -> None:
        if not self._has_warned:
            problem = self._describe(error, "journal, weights and checkpoint")
            _log.warning("%s; training goes on and writes them when it can", problem)
        self._has_warned = True

    def _describe(self, error: OSError, what: str) -> str:
        return f"folder={self._folder}; must take the trial's {what}: {error.strerror or error}"
