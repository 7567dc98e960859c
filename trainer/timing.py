"""How fast a configuration trains here: some real steps and a validation, and their memory."""

import dataclasses
import statistics
import time
from dataclasses import dataclass

from trainer.config import TrainConfig
from trainer.training_run import Diverged, TrainingRun

WARM_UP_STEPS = 3
"""Not timed: libraries are loaded in the first, and a compiled net is compiled."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured."""

    seconds_per_step: float
    """Median, waiting for data included."""
    data_wait_share: float
    """Share of the time of all steps that was waiting for data."""
    validation_seconds: float
    peak_memory_bytes: int
    """As the journal would record it."""


def time_steps(config: TrainConfig, steps: int = 10) -> Timing:
    """Train some steps on the configured recordings and device, validate once, and forget it all.

    Raises ValueError for bad recordings and devices, and when the net diverges within the steps.
    """
    short = dataclasses.replace(config, steps=WARM_UP_STEPS + steps)
    run = TrainingRun.begin(short, folder=None, commit="", resume_from=None)
    try:
        seconds, waited_s = _train(run)
        began_s = time.perf_counter()
        row = run.validate()
    except Diverged as error:
        allowed = f"a configuration that trains {short.steps} steps to be timed"
        raise ValueError(f"diverged: {error}; must be {allowed}") from error
    return Timing(
        seconds_per_step=statistics.median(seconds),
        data_wait_share=waited_s / sum(seconds),
        validation_seconds=time.perf_counter() - began_s,
        peak_memory_bytes=row["peak_memory_bytes"],
    )


def _train(run: TrainingRun) -> tuple[list[float], float]:
    """Return the seconds of each step after the warm-up, and those waited for data in all."""
    seconds: list[float] = []
    with run.batches() as batches:
        began_s, waited_before_s = time.perf_counter(), 0.0
        for clips, shifts in batches:
            run.update(clips, shifts)
            ended_s = time.perf_counter()
            seconds.append(ended_s - began_s)
            began_s = ended_s
            if run.step == WARM_UP_STEPS:
                waited_before_s = batches.wait_seconds
        return seconds[WARM_UP_STEPS:], batches.wait_seconds - waited_before_s
