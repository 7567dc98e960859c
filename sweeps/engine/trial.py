"""One trial on a worker: an assignment from the driver, `train`, and its outcome as a report.

The only place where any exception is caught: a failing trial never ends a sweep.
"""

import gc
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayError

from trainer.checkpoint import LAST, read_checkpoint_journal
from trainer.config import METRIC, TrainConfig
from trainer.device import describe_environment, resolve_device
from trainer.journal import Row
from trainer.train import StopTraining, TrainResult, train

STOP_FILE = "stop"

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a sweep have in common on their workers."""

    trials_folder: Path
    """Each trial keeps its files in a folder named by its fingerprint in this one."""
    stop_file: Path
    """As long as it exists, trials checkpoint and end as interrupted."""
    threads: int
    """Of torch, on the CPUs that the trial was given."""
    commit: str


def run_trial(assignment: dict[str, Any], context: TrialContext) -> None:
    """Train one trial; the last report says how it ended. Resumes where a checkpoint is."""
    torch.set_num_threads(context.threads)
    config = TrainConfig.from_fields(assignment["fields"])
    folder = context.trials_folder / assignment["fingerprint"]
    try:
        result = _train(config, folder, context)
        ending = {"outcome": result.outcome, "step": result.step, "error": result.reason}
    except RayError:
        raise
    except Exception as error:  # noqa: BLE001 - the trial boundary: recorded, not swallowed
        reason = f"{type(error).__name__}: {_first_line(error)}"
        outcome = "out_of_memory" if is_out_of_memory(error) else "failed"
        ending = {"outcome": outcome, "error": reason, "traceback": traceback.format_exc()}
    _free_memory()
    if ending["outcome"] == "stopped":
        sys.exit(0)  # Tune's own way out of a function that it has ended: it takes no more reports
    tune.report({"ending": ending})


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: on a CPU, torch says so only in its message."""
    said = "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or said


def _train(config: TrainConfig, folder: Path, context: TrialContext) -> TrainResult:
    here = describe_environment(resolve_device(config.device))
    tune.report({"started": here})
    resume_from = folder if (folder / LAST).is_file() else None
    if resume_from is not None:
        # A driver that died may have missed rows; who has them already takes them once.
        for row in read_checkpoint_journal(folder, fingerprint=folder.name):
            _report(row)
    return train(
        config,
        report=_report,
        should_stop=_Throttled(context.stop_file),
        resume_from=resume_from,
        folder=folder,
        commit=context.commit,
    )


def _report(row: Row) -> None:
    try:
        tune.report({"step": row["step"], METRIC: row[METRIC], "row": row})
    except SystemExit as ended:  # how Tune tells a trial that the scheduler has stopped it
        raise StopTraining("stopped by the scheduler") from ended


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Throttled:
    """Whether a file exists, looked up at most twice a second: storage may be a network away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_at_s = float("-inf")

    def __call__(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._looked_at_s < _SECONDS_BETWEEN_LOOKS:
            return False
        self._looked_at_s = now_s
        return self._path.exists()
