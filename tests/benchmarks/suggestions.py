"""What one suggestion of the sampler takes, by the number of ended trials beside it.

    PYTHONPATH=tests/support python tests/benchmarks/suggestions.py

The trials lie in memory, as ASHA leaves them: half with a curve of 10 reports, a quarter with 20, a
quarter with 40. What a database adds is in scale.py.
"""

import time

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from tests_support.drawn_trial import Drawing

from search_spaces import everything, lr_momentum
from sweeps.engine.sampling import SweepSampler

BESIDE = (100, 1_000, 5_000, 20_000, 100_000)


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
    """Print the time of one suggestion beside ended trials that lie in memory, by their number."""
    spaces = {"lr_momentum": lr_momentum.suggest, "everything": everything.suggest}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'ms a suggestion':<16}" + "".join(f"{n:>10,}" for n in BESIDE))
    for name, space in spaces.items():
        for sampler, startup in (("TPE", 0), ("Halton", 10**9)):
            cells = [1000 * suggestion_s(space, count, startup=startup) for count in BESIDE]
            row = "".join(f"{cell:>10.1f}" for cell in cells)
            print(f"{name:<12}{sampler:<8}{row}", flush=True)


def suggestion_s(space, count, *, startup, repeats=3):
    """Return the mean seconds of a suggestion beside so many ended trials."""
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials(ended_trial(space, number) for number in range(count))
    study.sampler = SweepSampler(0, startup=startup)
    began_s = time.perf_counter()
    for _ in range(repeats):
        space(study.ask())
    return (time.perf_counter() - began_s) / repeats


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
