"""Where the next trial lies: quasi-random points first, then TPE, repeatable across restarts.

A seeded TPESampler does not repeat after a restart, because its generator starts over. Here each
trial has a generator of its own, seeded by the sweep's seed and the trial's number.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts load when first used: known points need none of them
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

_MOST_DIMENSIONS = 64


class SweepSampler(BaseSampler):
    """Halton points for the first `startup` trials by number, then multivariate TPE."""

    def __init__(self, seed: int, *, startup: int) -> None:
        self._seed = seed
        self._startup = startup
        self._tpe = TPESampler(seed=seed)
        # Of TPE's own there would be a new one for each trial, which looks at all trials again.
        self._shared_fields = IntersectionSearchSpace(include_pruned=True)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the trial's own generator."""
        seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        self._tpe = TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the fields that TPE chooses together; none during start-up."""
        if trial.number < self._startup:
            return {}
        shared = self._shared_fields.calculate(study, use_cache=True)
        return {name: field for name, field in shared.items() if not field.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose fields together."""
        if not search_space:
            return {}
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose one field: the trial's next Halton coordinate, or TPE's choice."""
        if trial.number >= self._startup:
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)
        point = _halton_point(self._seed, trial.number)
        return from_unit_interval(point[len(trial.params)], param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let TPE take note of an ended trial."""
        self._tpe.after_trial(study, trial, state, values)


def from_unit_interval(u: float, distribution: BaseDistribution) -> Any:
    """Return the value at share u of [0, 1) of a distribution, in its own scale."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(u * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        return min(high, round(value)) if isinstance(distribution, IntDistribution) else value
    if step is None:
        return low + u * (high - low)
    return low + step * int(u * (math.floor((high - low) / step) + 1))


@functools.lru_cache(maxsize=1)
def _halton_point(seed: int, number: int) -> Sequence[float]:
    sequence = scipy.stats.qmc.Halton(d=_MOST_DIMENSIONS, scramble=True, rng=seed)
    sequence.fast_forward(number)
    point: Sequence[float] = sequence.random(1)[0].tolist()
    return point
