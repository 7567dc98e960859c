"""What a sweep would take: trials at each rung, steps, hours, memory and disk, before it runs."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ray.tune.schedulers import TrialScheduler

from sweeps.engine.stopping import SweepStopper, build_stopper
from trainer.config import TrainConfig

_JUDGEMENTS = 20_000
"""So many reports are played in all, whatever the number of trials."""
_FEWEST_GAMES = 10


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What ASHA leaves of a sweep, on average."""

    reaching: dict[int, float]
    """How many trials are expected to reach each rung, and the last step."""
    steps: float
    """Steps of all trials together."""
    duration_steps: float
    """Steps that pass, one after the other, until all slots are done."""


def expect_stopping(
    config: TrainConfig, *, trials: int, slots: int, stops_early: bool = True
) -> Expectation:
    """Play the sweep with its real scheduler and trials that rank at random, and average."""
    reports = -(-config.steps // config.report_every)
    games = max(_FEWEST_GAMES, _JUDGEMENTS // (trials * reports))

    def build() -> SweepStopper:
        return build_stopper(config, stops_early=stops_early)

    played = [_play(config, build(), trials=trials, slots=slots, seed=s) for s in range(games)]
    ends = [length for game in played for length in game.lengths]
    marks = [*build().rungs(), config.steps]
    return Expectation(
        reaching={mark: sum(end >= mark for end in ends) / games for mark in marks},
        steps=sum(ends) / games,
        duration_steps=sum(game.duration for game in played) / games,
    )


@dataclass(frozen=True, kw_only=True)
class _Game:
    lengths: Sequence[int]
    """Steps of each trial."""
    duration: int


def _play(
    config: TrainConfig, stopper: SweepStopper, *, trials: int, slots: int, seed: int
) -> _Game:
    """Let trials of equal speed, each with a validation of its own, take turns on the slots."""
    chance = random.Random(seed)
    values = [chance.random() for _ in range(trials)]
    waiting = iter(range(trials))
    lengths = [0] * trials
    # (time of the next report, a tie-break, trial); time is in steps.
    first = min(config.report_every, config.steps)
    due = [(first, chance.random(), next(waiting)) for _ in range(min(slots, trials))]
    heapq.heapify(due)
    now = 0
    while due:
        now, _, trial = heapq.heappop(due)
        lengths[trial] = min(lengths[trial] + config.report_every, config.steps)
        step = lengths[trial]
        is_over = step == config.steps
        if is_over or stopper.judge(str(trial), step, values[trial]) == TrialScheduler.STOP:
            trial = next(waiting, -1)
        if trial >= 0:
            stride = min(config.report_every, config.steps - lengths[trial])
            heapq.heappush(due, (now + stride, chance.random(), trial))
    return _Game(lengths=lengths, duration=now)
