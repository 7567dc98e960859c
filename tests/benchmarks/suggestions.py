"""What one suggestion of the sampler takes, by the number of ended trials beside it.

    PYTHONPATH=tests/support python tests/benchmarks/suggestions.py

The trials lie in memory, as ASHA leaves them: half with a curve of 10 reports, a quarter with 20, a
quarter with 40. What a database adds is in scale.py.
"""

import itertools
import time

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from tests_support.drawn_trial import Drawing

from search_spaces import everything, lr_momentum
from sweeps.engine.sampling import SweepSampler

BESIDE = (100, 1_000, 5_000, 20_000, 100_000)
SPACES = {
    "lr_momentum": (lr_momentum.suggest, 100_000),
    "everything": (everything.suggest, 20_000),
}
"""Each with the most trials that are made of it, which takes longer than what is measured."""


class Drawn(Drawing):
    """Draws evenly as Optuna would note it: with each field's distribution."""

    def __init__(self, seed):
        super().__init__(seed)
        self.distributions = {}

    def suggest_float(self, name, low, high, *, log=False):
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return super().suggest_float(name, low, high, log=log)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.distributions[name] = IntDistribution(low, high, step=step, log=log)
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_categorical(self, name, choices):
        self.distributions[name] = CategoricalDistribution(choices)
        return super().suggest_categorical(name, choices)


def main():
    """Print the processor time of a suggestion for each space, by TPE and without it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'ms a suggestion':<20}" + "".join(f"{count:>10,}" for count in BESIDE))
    for name, (space, most) in SPACES.items():
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
        rows = {"TPE": "", "Halton": ""}
        for before, count in itertools.pairwise((0, *BESIDE)):
            if count <= most:
                study.add_trials(ended_trial(space, number) for number in range(before, count))
                for kind, startup in (("TPE", 0), ("Halton", 10**9)):
                    study.sampler = SweepSampler(0, startup=startup)
                    rows[kind] += f"{suggestion_ms(study, space):>10.1f}"
        for kind, row in rows.items():
            print(f"{name:<12}{kind:<8}{row}", flush=True)


def suggestion_ms(study, space, repeats=3):
    """Return the mean of some suggestions, the first of which looks at all trials once."""
    space(study.ask())
    began_s = time.thread_time()
    for _ in range(repeats):
        space(study.ask())
    return 1000 * (time.thread_time() - began_s) / repeats


def ended_trial(space, number):
    """Return a trial as ASHA leaves them: of four, two stopped at a quarter, one at half."""
    drawn = Drawn(number)
    space(drawn)
    reports = (10, 10, 20, 40)[number % 4]
    value = 1.0 + drawn.params[next(iter(drawn.distributions))].__hash__() % 1000 / 1000
    return create_trial(
        state=TrialState.COMPLETE if reports == 40 else TrialState.PRUNED,
        value=value,
        params=drawn.params,
        distributions=drawn.distributions,
        intermediate_values={250 * (n + 1): value for n in range(reports)},
    )


if __name__ == "__main__":
    main()
