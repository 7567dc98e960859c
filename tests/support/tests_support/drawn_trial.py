"""Trials that draw by themselves: as Optuna's, without a study and so in no time."""

import math
import random


class Drawing:
    """Draws evenly, and notes what it was asked for."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.params = {}
        self.offered = {}

    def suggest_float(self, name, low, high, *, log=False):
        u = self._random.random()
        value = (
            math.exp(math.log(low) + u * math.log(high / low)) if log else low + u * (high - low)
        )
        return self._note(name, min(high, max(low, value)), (low, high))

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self._note(name, self._random.randrange(low, high + 1, step), (low, high))

    def suggest_categorical(self, name, choices):
        return self._note(name, self._random.choice(choices), choices)

    def _note(self, name, value, choices):
        assert name not in self.params, f"{name} is asked for twice"
        self.params[name] = value
        self.offered[name] = choices
        return value


class Extreme(Drawing):
    """Draws the low or the high end of what is asked, or any of some names."""

    def suggest_float(self, name, low, high, *, log=False):
        return self._note(name, self._random.choice((low, high)), (low, high))

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self._note(name, self._random.choice((low, high)), (low, high))
