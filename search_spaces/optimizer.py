"""Which optimizer, each with its own rates: Muon + AdamW, AdamW alone, or PSGD.

The log gave Muon + AdamW four pairs of rates (outputs 25 to 28), PSGD four rates and three momenta
(38 to 43), and neither a warm-up or a schedule: its PSGD runs spike late, which both might cure.
"""

import functools
from collections.abc import Mapping

from search_spaces.space import LOG, SearchSpace, Shared, Trial

_RATES: Mapping[str, tuple[float, float]] = {
    "muon_adamw": (3e-4, 3e-2),  # the log: 1e-3 to 1e-2
    "adamw": (3e-5, 3e-3),  # on the frames net 3e-4 is good and 3e-3 diverges
    "psgd": (3e-5, 3e-3),  # the log: 1e-4 to 1e-3
}
_LONGEST_WARMUP = 0.1
"""Of all steps."""


def space_for(shared: Shared) -> SearchSpace:
    """Return the space for trials of a known length."""
    choose = functools.partial(choose_optimizer, steps=shared.fields["steps"])
    return SearchSpace(suggest=choose, known_points=_known_points())


def suggest(trial: Trial) -> dict[str, object]:
    """Choose from the space at the log's size."""
    return space_for(LOG).suggest(trial)


def choose_optimizer(trial: Trial, *, steps: object) -> dict[str, object]:
    """Choose an optimizer and its rates, and how both are held in check, for so many steps."""
    name = trial.suggest_categorical("optimizer.name", tuple(_RATES))
    low, high = _RATES[name]
    fields: dict[str, object] = {
        "optimizer.name": name,
        "optimizer.lr": trial.suggest_float(f"{name}.lr", low, high, log=True),
        "optimizer.momentum": trial.suggest_float(f"{name}.momentum", 0.8, 0.99),
    }
    if name == "muon_adamw":
        adamw_lr = trial.suggest_float("muon_adamw.adamw_lr", 3e-5, 3e-3, log=True)
        fields["optimizer.adamw_lr"] = adamw_lr
    if name == "psgd":
        fields |= _choose_preconditioner(trial)
    return {**fields, **_choose_schedule(trial, steps), **_choose_clipping(trial)}


def _choose_preconditioner(trial: Trial) -> dict[str, object]:
    """Choose how often PSGD updates its preconditioner: by heavyball's schedule or evenly."""
    if trial.suggest_categorical("psgd.updates", ("scheduled", "even")) == "scheduled":
        return {}
    # 0.03 is where heavyball's own schedule ends.
    probability = trial.suggest_float("psgd.preconditioner_probability", 0.03, 1.0, log=True)
    return {"optimizer.preconditioner_probability": probability}


def _choose_schedule(trial: Trial, steps: object) -> dict[str, object]:
    assert isinstance(steps, int)
    share = trial.suggest_float("optimizer.warmup_share", 0.0, _LONGEST_WARMUP)
    return {
        "optimizer.warmup_steps": round(share * steps),
        "optimizer.schedule": trial.suggest_categorical(
            "optimizer.schedule", ("constant", "cosine")
        ),
    }


def _choose_clipping(trial: Trial) -> dict[str, object]:
    """Choose no clipping, or a norm up to BigVGAN's 1e3, the log's (output31)."""
    if trial.suggest_categorical("optimizer.clipping", ("none", "norm")) == "none":
        return {"optimizer.clip_norm": None}
    return {"optimizer.clip_norm": trial.suggest_float("optimizer.clip_norm", 0.1, 1e3, log=True)}


def known_optimizer(
    name: str, *, lr: float, momentum: float, clip_norm: float | None = None, **own: object
) -> dict[str, object]:
    """Return the parameters of an optimizer without warm-up and schedule."""
    point: dict[str, object] = {
        "optimizer.name": name,
        f"{name}.lr": lr,
        f"{name}.momentum": momentum,
        **{f"{name}.{key}": value for key, value in own.items()},
        "optimizer.warmup_share": 0.0,
        "optimizer.schedule": "constant",
        "optimizer.clipping": "none" if clip_norm is None else "norm",
    }
    return point if clip_norm is None else {**point, "optimizer.clip_norm": clip_norm}


def _known_points() -> tuple[Mapping[str, object], ...]:
    """Return the log's runs and one for AdamW, each optimizer's best first.

    Muon's momentum is not told by the log, AdamW alone is not in it: both are the trainer's own.
    """
    muon = functools.partial(known_optimizer, "muon_adamw", momentum=0.95, lr=5e-3, adamw_lr=5e-4)
    psgd = functools.partial(known_optimizer, "psgd", momentum=0.9, updates="scheduled")
    return (
        muon(),  # output27: "much better results"
        psgd(lr=3e-4),  # output39: "a bit of a slow start, and stalls out later"
        known_optimizer("adamw", lr=3e-4, momentum=0.9, clip_norm=1.0),
        muon(clip_norm=1e3),  # output31: "very similar results"
        psgd(lr=1e-3),  # output38: "lots of loss spikes after like 1k steps"
        psgd(lr=5e-4),  # output40: "worse overall, loss spikes later"
        psgd(lr=1e-4),  # output41: "monotonically decreasing val loss at least"
        psgd(lr=3e-4, momentum=0.8),  # output42: "falls behind in the 2nd half"
        psgd(lr=3e-4, momentum=0.95),  # output43
    )


KNOWN_POINTS = _known_points()
"""Each optimizer's best first."""
