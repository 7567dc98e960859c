"""Learning rates and momentum of Muon + AdamW, for a fixed net.

The log moved both rates at once (outputs 25 to 28) and never Muon's momentum, which it does not
tell either: its known points leave momentum at the trainer's default.
"""

from collections.abc import Mapping

from search_spaces.space import Trial


def suggest(trial: Trial) -> dict[str, object]:
    """Choose both learning rates and Muon's momentum."""
    return {
        "optimizer.lr": trial.suggest_float("optimizer.lr", 3e-4, 3e-2, log=True),
        "optimizer.adamw_lr": trial.suggest_float("optimizer.adamw_lr", 3e-5, 3e-3, log=True),
        "optimizer.momentum": trial.suggest_float("optimizer.momentum", 0.8, 0.99),
    }


_UNTOLD_MOMENTUM = 0.95  # the trainer's default; a test holds the two equal

KNOWN_POINTS: tuple[Mapping[str, object], ...] = tuple(
    {
        "optimizer.lr": muon_lr,
        "optimizer.adamw_lr": adamw_lr,
        "optimizer.momentum": _UNTOLD_MOMENTUM,
    }
    for muon_lr, adamw_lr in (
        (5e-3, 5e-4),  # output27: "much better results"
        (2e-3, 3e-4),  # output25: "increase in val loss after only 5k steps"
        (1e-2, 1e-3),  # output28: "worse"
        (1e-3, 1e-4),  # the run between output25 and output27: "noticeably worse"
    )
)
"""The log's runs, its best first."""
