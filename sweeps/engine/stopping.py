"""Which trials are stopped early: Ray's ASHA with its gaps closed.

Ray's own stops also at the last step (so that finished and stopped look alike), forgets its rungs
when the driver starts again, and lets a trial that resumes be judged twice. A validation that is
not a number never gets here: the trainer ends such a trial itself, as diverged.
"""

import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from trainer.config import METRIC, TrainConfig

REDUCTION_FACTOR = 2
"""At each rung about the better half goes on."""

RUNGS = 2
"""Rungs lie at 1/4 and 1/2 of the steps: the log's curves cross, so no earlier."""


def build_stopper(config: TrainConfig, *, stops_early: bool = True) -> "SweepStopper":
    """Build the scheduler for trials of a configuration's length; it may stop none."""
    report_every = config.report_every if stops_early else config.steps
    return SweepStopper(last_step=config.steps, report_every=report_every)


class SweepStopper(AsyncHyperBandScheduler):
    """ASHA on validation by step, knowing trials by fingerprint across restarts."""

    def __init__(self, *, last_step: int, report_every: int) -> None:
        """Place the rungs; a trial is judged at its first report at or after one."""
        # Rounded up, or a third rung would lie just before the end.
        first = max(report_every, math.ceil(last_step / REDUCTION_FACTOR**RUNGS))
        super().__init__(
            time_attr="step",
            metric=METRIC,
            mode="min",
            grace_period=min(first, last_step),
            max_t=last_step + 1,
            reduction_factor=REDUCTION_FACTOR,
            stop_last_trials=False,
        )
        self._last_step = last_step
        self._report_every = report_every
        self._stopped: dict[str, int] = {}

    def remember(
        self,
        curves: Iterable[tuple[str, Mapping[int, float]]],
        *,
        stops: Mapping[str, int] | None = None,
    ) -> None:
        """Fill the rungs with what earlier drivers of this sweep saw: (fingerprint, curve).

        Trials that they stopped, by fingerprint at a step, stay stopped.
        """
        self._stopped |= stops or {}
        for fingerprint, curve in curves:
            for step in sorted(curve):
                self.judge(fingerprint, step, curve[step])

    def stopped_at(self, fingerprint: str) -> int | None:
        """Return the step at which this scheduler ended the trial, None where it did not."""
        return self._stopped.get(fingerprint)

    def rungs(self) -> list[int]:
        """Return the steps at which trials are judged: of the first reports at or after rungs."""
        places = (int(place) for place, _ in self._brackets[0]._rungs)
        steps = {math.ceil(place / self._report_every) * self._report_every for place in places}
        return sorted(step for step in steps if step < self._last_step)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to prepare: there is one bracket, and fingerprints are its keys."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to clean up."""

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Any) -> None:
        """Nothing to add: every report was judged when it came."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that is in the worse half at its rung; never at its last step."""
        if METRIC not in result or result["step"] >= self._last_step:
            return TrialScheduler.CONTINUE
        fingerprint = trial.config["fingerprint"]
        action = self.judge(fingerprint, result["step"], result[METRIC])
        if action == TrialScheduler.STOP:
            self._stopped.setdefault(fingerprint, result["step"])
        # A driver that was killed between its verdict and the trial's end: the verdict holds.
        is_over = result["step"] >= self._stopped.get(fingerprint, math.inf)
        return TrialScheduler.STOP if is_over else action

    def judge(self, fingerprint: str, step: int, value: float) -> str:
        """Return whether a trial goes on (CONTINUE) or not (STOP) with its validation at a step."""
        known_as = cast("Trial", SimpleNamespace(trial_id=fingerprint))
        action: str = self._brackets[0].on_result(known_as, step, -value)
        return action
