"""The state of one trial while it trains, and the steps that `train` is made of."""

import dataclasses
import logging
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from trainer.batches import Prefetcher, training_batch
from trainer.checkpoint import State, find_checkpoint
from trainer.config import METRIC, TrainConfig
from trainer.data import DataAway, DataSet, open_data
from trainer.device import PeakMemory, describe_environment, resolve_device
from trainer.evaluate import ValidationSet, evaluate
from trainer.journal import Journal, Row
from trainer.learner import Learner
from trainer.losses.foreign import pin_weights
from trainer.losses.mix import Loss
from trainer.models import build_model
from trainer.record import Record
from trainer.trial_folder import TrialFolder

_log = logging.getLogger(__name__)


class Diverged(Exception):
    """The loss, its gradient or the validation is not a finite number any more."""


@dataclass(kw_only=True)
class Interval:
    """What is gathered between two reports. Losses and norms are kept in checkpoints too."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    by_term: dict[str, list[float]] = field(default_factory=dict)
    """`train_<term>` and, of trained terms, `gradient_<term>`, as in a row."""
    busy_s: float = 0.0
    """Time spent training: reports and checkpoints are not in it, nor is waiting for data."""
    steps_timed: int = 0
    waited_before_s: float = 0.0


def open_data_of(config: TrainConfig) -> DataSet:
    """Open a configuration's recordings.

    Raises DataAway where they cannot be used, or are not the ones it asks for.
    """
    data = open_data(config.data.path, config.data.cache)
    expected = config.data.fingerprint
    if expected is not None and expected != data.fingerprint:
        raise DataAway(
            f"data.path={config.data.path} holds data {data.fingerprint}; must be data {expected}"
        )
    return data


class TrainingRun:
    """A net, its optimizer and its data, at a step."""

    def __init__(self, config: TrainConfig, data: DataSet) -> None:
        self._config = config
        self._data = data
        self._folder: TrialFolder | None = None
        self._device = resolve_device(config.device)
        self._fingerprint = config.fingerprint(data.fingerprint)
        _make_repeatable(config.seed)
        self._model = build_model(config.model).to(self._device)
        self._learner = Learner(self._model, config)
        self._optimizer = self._learner.optimizer
        self._validation = ValidationSet.build(data, config.validation, self._device)
        self._memory = PeakMemory(self._device)
        self._journal = Journal(None)
        self._seconds_before = 0.0
        self._begun_s = time.perf_counter()
        self._interval = Interval()
        self._left_out: set[str] = set()
        self.step = 0

    @classmethod
    def begin(
        cls, config: TrainConfig, *, folder: Path | None, commit: str, resume_from: Path | None
    ) -> "TrainingRun":
        """Set everything up for step 1, or for the step after a checkpoint's.

        Raises DataAway where the recordings cannot be used, ValueError where the checkpoint cannot,
        or the folder takes no files.
        """
        data = open_data_of(config)
        config = dataclasses.replace(config, loss=pin_weights(config.loss))
        run = cls(config, data)
        used = None if resume_from is None else run._resume(resume_from)
        if folder is not None:
            run._open_folder(folder, commit=commit, used=used)
        return run

    @property
    def is_complete(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self._config.steps

    @property
    def is_report_due(self) -> bool:
        """Whether this step is one to validate at; the last always is."""
        return self.step % self._config.report_every == 0 or self.is_complete

    @property
    def value(self) -> float | None:
        """Return the best validation so far, that of the weights kept."""
        return min(self._values(), default=None)

    @property
    def last_value(self) -> float | None:
        """Return the latest validation."""
        return next(reversed(self._values()), None)

    def batches(self) -> Prefetcher:
        """Return the training batches from here to the last step, fetched ahead."""
        self._fetched = Prefetcher(self._batch, start=self.step + 1, stop=self._config.steps + 1)
        return self._fetched

    def update(self, clips: np.ndarray, shifts: np.ndarray) -> None:
        """Train one step on clips [batch, sample] with a shift in semitones each, [batch].

        Raises Diverged when the loss or its gradient is not finite.
        """
        started_s = time.perf_counter()
        clean = torch.from_numpy(clips).to(self._device, non_blocking=True)
        semitones = torch.from_numpy(shifts)
        tried = self._learner.try_out(clean, semitones)
        self._memory.sample()  # all that the way back needs is alive
        grad_norm = self._learner.descend(tried)
        self.step += 1
        self._note(tried.loss, grad_norm)
        self._interval.busy_s += time.perf_counter() - started_s

    def validate(self) -> Row:
        """Return the row of this step. Raises Diverged when the metric is not finite."""
        row = self._training_part()
        self._model.eval()
        scores = evaluate(self._learner.restore, self._validation)
        self._model.train()
        if not math.isfinite(scores[METRIC]):
            raise Diverged(f"validation {METRIC}={scores[METRIC]} at step {self.step}")
        self._memory.sample()
        row |= scores
        row = self._finite(row)
        row["seconds"] = self._seconds()
        row["peak_memory_bytes"] = self._memory.peak_bytes
        row["time_ms"] = time.time_ns() // 1_000_000
        self._interval = Interval(waited_before_s=self._fetched.wait_seconds)
        return row

    def keep(self, row: Row) -> None:
        """Add a row to the journal; where there is a folder, write it, the best weights if these
        are they, and the checkpoint."""
        is_best = self.value is None or row[METRIC] < self.value
        self._journal.rows.append(row)
        self._write(best=self._model.state_dict() if is_best else None)

    def save(self) -> None:
        """Write the checkpoint that training can go on from, where there is a folder."""
        self._write(best=None)

    def close(self) -> None:
        """Raise ValueError where there is a folder, and the journal and best weights are not in it
        and cannot be."""
        if self._folder is not None:
            self._folder.close()

    def _write(self, *, best: dict[str, Tensor] | None) -> None:
        if self._folder is not None:
            self._folder.keep(self._state(), best=best, step=self.step)

    def _state(self) -> State:
        rng = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self._device)
        return {
            "step": self.step,  # also the position in the data: batches follow from it
            "fingerprint": self._fingerprint,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "loss": self._learner.mix.state_dict(),
            "rng": rng,
            "journal": self._journal.rows,
            "interval": {
                "losses": self._interval.losses,
                "grad_norms": self._interval.grad_norms,
                "by_term": self._interval.by_term,
            },
            "seconds": self._seconds(),
        }

    def _open_folder(self, folder: Path, *, commit: str, used: Path | None) -> None:
        """Begin to keep what is trained; `used` is the checkpoint that it goes on from."""
        record = Record(
            config=self._config,
            data_fingerprint=self._data.fingerprint,
            commit=commit,
            environments=(describe_environment(self._device),),
        )
        rows = self._journal.rows
        self._folder = TrialFolder(folder, record, step=self.step, rows=rows, used=used)
        self._journal = self._folder.journal

    def _resume(self, path: Path) -> Path:
        """Take up a checkpoint; return its file."""
        file, state = find_checkpoint(path, fingerprint=self._fingerprint)
        try:
            self._take_up(state)
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            problem = f"checkpoint={file}; must fit the trial's net and optimizer: {reason}"
            raise ValueError(problem) from error
        return file

    def _take_up(self, state: State) -> None:
        self._model.load_state_dict(cast("dict[str, Tensor]", state["model"]))
        self._optimizer.load_state_dict(cast("dict[str, dict[str, object]]", state["optimizer"]))
        self._learner.mix.load_state_dict(cast("dict[str, Any]", state["loss"]))
        rng = cast("dict[str, Tensor]", state["rng"])
        torch.set_rng_state(rng["cpu"])
        if self._device.type == "cuda" and "cuda" in rng:
            torch.cuda.set_rng_state(rng["cuda"], self._device)
        self._journal = Journal(None, cast("list[Row]", state["journal"]))
        self._interval = Interval(**cast("dict[str, Any]", state["interval"]))
        self._seconds_before = cast("float", state["seconds"])
        self.step = cast("int", state["step"])

    def _batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return training_batch(
            self._data,
            clip_samples=self._config.data.clip_samples,
            batch_size=self._config.data.batch_size,
            shifts=self._config.damage.shifts,
            seed=self._config.seed,
            step=step,
        )

    def _note(self, loss: Loss, grad_norm: Tensor) -> None:
        numbers = {"loss": loss.total, "grad_norm": grad_norm}
        numbers |= {f"train_{name}": value for name, value in loss.terms.items()}
        numbers |= {f"gradient_{name}": value for name, value in loss.gradient_norms.items()}
        fetched = torch.stack(list(numbers.values())).tolist()  # one wait for the device, not many
        total, norm, *by_term = fetched
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise Diverged(f"loss={total}, gradient norm={norm} at step {self.step}")
        self._interval.losses.append(total)
        self._interval.grad_norms.append(norm)
        for name, value in zip(list(numbers)[2:], by_term, strict=True):
            self._interval.by_term.setdefault(name, []).append(value)
        self._interval.steps_timed += 1
        self._memory.sample()

    def _training_part(self) -> Row:
        interval = self._interval
        waited_s = self._fetched.wait_seconds - interval.waited_before_s
        elapsed_s = interval.busy_s + waited_s
        norms = np.asarray(interval.grad_norms)
        return {
            "step": self.step,
            "train_loss": statistics.fmean(interval.losses),
            "train_losses": interval.losses,
            **{name: statistics.fmean(values) for name, values in interval.by_term.items()},
            "grad_norm_median": float(np.median(norms)),
            "grad_norm_p99": float(np.quantile(norms, 0.99)),
            "clipped_share": float(np.mean([self._optimizer.is_clipped(n) for n in norms])),
            **self._optimizer.learning_rates(),
            "steps_per_second": interval.steps_timed / elapsed_s,
            "data_wait_share": waited_s / elapsed_s,
        }

    def _finite(self, row: Row) -> Row:
        """Return a row without the numbers that are none, with a warning the first time of each:
        terms and metrics that only inform may be NaN, and JSON does not know it."""
        odd = {name for name, n in row.items() if isinstance(n, float) and not math.isfinite(n)}
        for name in sorted(odd - self._left_out):
            _log.warning("%s=%s at step %d: left out", name, row[name], self.step)
        self._left_out |= odd
        return {name: n for name, n in row.items() if name not in odd}

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._begun_s

    def _values(self) -> list[float]:
        return [row[METRIC] for row in self._journal.rows]


def _make_repeatable(seed: int) -> None:
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else torch fills every new tensor before it is used, a tenth of a demo step: a help against
    # operations that read what nobody wrote, and none here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
