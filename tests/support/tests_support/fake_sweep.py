"""A sweep without Ray: a study, and a fake trainer of known curves."""

import optuna

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.study import SweepPlan, SweepStudy
from trainer.sizes import SIZES


class NeverStops:
    """Of a sweep that nobody stops."""

    def is_set(self):
        return False

    def give_up(self, problem):
        raise AssertionError(problem)


def space(trial):
    return {
        "optimizer.lr": trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True),
        "optimizer.momentum": trial.suggest_float("optimizer.momentum", 0.5, 0.99),
    }


def plan(*, trials=8, seed=0, space=space, data_fingerprint="0" * 16, known_points=(), **more):
    return SweepPlan(
        space=space,
        known_points=known_points,
        base=SIZES["demo"],
        data_fingerprint=data_fingerprint,
        trials=trials,
        seed=seed,
        **more,
    )


def new_study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=optuna.storages.InMemoryStorage())


def open_sweep(study=None, **changes):
    return SweepStudy(new_study() if study is None else study, plan(**changes))


def settle(study, suggestion, outcome, *, curve=()):
    """Report a curve {step: value} and tell how the trial ended."""
    curve = dict(curve)
    for step, value in curve.items():
        study.report(suggestion.fingerprint, step=step, value=value)
    last = max(curve, default=0)
    study.settle(
        TrialRecord(
            fingerprint=suggestion.fingerprint,
            outcome=outcome,
            params=suggestion.fields,
            notes=suggestion.notes,
            step=last,
            value=min(curve.values(), default=None),
            last_value=curve.get(last),
        )
    )
    return suggestion
