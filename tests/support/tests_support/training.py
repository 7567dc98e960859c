"""Training a configuration, and what of it is compared."""

import torch

from trainer.journal import MEASURED_ONLY
from trainer.train import train


def train_rows(config, **arguments):
    """Return the result and the rows reported."""
    rows = []
    return train(config, report=rows.append, **arguments), rows


def trained_part(rows):
    """Return rows without what they say of the machine's speed."""
    return [{k: v for k, v in row.items() if k not in MEASURED_ONLY} for row in rows]


def losses(rows):
    return [loss for row in rows for loss in row["train_losses"]]


def after_calls(count):
    """Return a should_stop that says yes when asked for the count-th time."""
    answers = iter([*[False] * (count - 1), True])
    return lambda: next(answers)


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
