"""A sweep whose trials end in every way that a configuration can bring about by itself."""

from sweeps.engine.run import Sweep, main

FATES = {
    "good": {},
    "diverges": {"optimizer.name": "adamw", "optimizer.lr": 1e30},
    "breaks": {"optimizer.name": "adamw", "device": "cuda:99"},
    "refused": {"optimizer.momentum": 2.0},
    "too large": {"model.channels": (16_384,), "model.blocks": (64,)},
    "also good": {"optimizer.lr": 1e-3},
}


def suggest(trial):
    return FATES[trial.suggest_categorical("fate", list(FATES))]


# Not stopped early: who comes to a rung first is chance; what is stopped there has not diverged.
SWEEP = Sweep(
    name="fragile",
    space=suggest,
    known_points=[{"fate": fate} for fate in FATES],
    stops_early=False,
)

if __name__ == "__main__":
    main(SWEEP)
