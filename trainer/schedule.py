"""How large a share of its learning rate an optimizer uses at a step: a function of the step."""

import math

from trainer.optimizer_config import Schedule


def rate_share(step: int, *, steps: int, warmup_steps: int, schedule: Schedule) -> float:
    """Return the share, 0 to 1, of the rate for a step, the first being 1, of `steps` in all.

    It rises linearly: step 1 has 1 / warmup_steps, step `warmup_steps` all. After that it stays, or
    falls along half a cosine (Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5, without
    restarts) from all, right after the warm-up, to zero for the step after the last.
    """
    if step <= warmup_steps:
        return step / warmup_steps
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - 1 - warmup_steps) / max(1, steps - warmup_steps))
    return (1 + math.cos(math.pi * done)) / 2
