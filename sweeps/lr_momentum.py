"""Which learning rates and momentum of Muon + AdamW train the net best?"""

from search_spaces import lr_momentum
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(
    name="lr_momentum",
    space=lr_momentum.suggest,
    known_points=lr_momentum.KNOWN_POINTS,
)

if __name__ == "__main__":
    main(SWEEP)
