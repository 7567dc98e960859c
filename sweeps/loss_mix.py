"""Which losses, mixed with what weights, train the net best?"""

from search_spaces import loss_mix
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(name="loss_mix", space_for=loss_mix.space_for)

if __name__ == "__main__":
    main(SWEEP)
