"""A trial's recipe trained at the log's full length: a trial of its own, kept for use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from sweeps.engine.root import Root
from trainer.checkpoint import has_checkpoint, load_last
from trainer.config import METRIC, TrainConfig
from trainer.data import open_data
from trainer.device import resolve_device
from trainer.evaluate import ValidationSet, score_do_nothing
from trainer.journal import Row
from trainer.sizes import length_fields
from trainer.train import TrainResult, train

LOG_STEPS = TrainConfig().steps
"""How long the log trained."""


@dataclass(frozen=True, kw_only=True)
class FullRun:
    """A configuration, its name, and where it is trained."""

    config: TrainConfig
    fingerprint: str
    folder: Path
    root: Root

    @property
    def step(self) -> int:
        """Return the step that training goes on from.

        Raises ValueError when the checkpoint is damaged.
        """
        if not has_checkpoint(self.folder):
            return 0
        return int(str(load_last(self.folder, fingerprint=self.fingerprint)["step"]))

    def train(
        self,
        *,
        commit: str,
        on_row: Callable[[Row], None],
        should_stop: Callable[[], bool],
    ) -> TrainResult:
        """Train from the last checkpoint on; `should_stop` is asked after each step.

        Raises ValueError when it is being trained already.
        """
        try:
            with self.root.hold(self.fingerprint, timeout_s=0):
                return train(
                    self.config,
                    report=on_row,
                    should_stop=should_stop,
                    resume_from=self.folder if self.step else None,
                    folder=self.folder,
                    commit=commit,
                )
        except Timeout as error:
            raise ValueError(
                f"trial={self.fingerprint} is being trained; must be by one process at a time"
            ) from error

    def score_do_nothing(self) -> float:
        """Return what doing nothing scores on its recordings."""
        data = open_data(self.config.data.path, self.config.data.cache)
        device = resolve_device(self.config.device)
        return score_do_nothing(ValidationSet.build(data, self.config.validation, device))[METRIC]


def plan_full_run(config: TrainConfig, *, data_fingerprint: str, steps: int, root: Root) -> FullRun:
    """Return the run of a trial's configuration at another length."""
    fields: dict[str, Any] = config.to_fields()
    fields |= length_fields(steps, report_every=TrainConfig().report_every)
    longer = TrainConfig.from_fields(fields)
    fingerprint = longer.fingerprint(data_fingerprint)
    return FullRun(
        config=longer,
        fingerprint=fingerprint,
        folder=root.trial_folder(fingerprint),
        root=root,
    )
