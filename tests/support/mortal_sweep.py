"""A sweep whose workers die as they are to take up a second trial."""

import os

from search_spaces import lr_momentum
from sweeps.engine import tuning
from sweeps.engine.run import Sweep, main
from sweeps.engine.trial import build_trainable

SWEEP = Sweep(name="mortal", space=lr_momentum.suggest, stops_early=False)


def build(context):
    class Mortal(build_trainable(context)):
        def reset(self, new_config, **named):
            os._exit(1)

    return Mortal


if __name__ == "__main__":
    tuning.run_trials.__kwdefaults__["build"] = build
    main(SWEEP)
