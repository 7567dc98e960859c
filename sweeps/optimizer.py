"""Does Muon + AdamW, AdamW alone or PSGD train the net best, and at which rates?"""

from search_spaces import optimizer
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(name="optimizer", space_for=optimizer.space_for)

if __name__ == "__main__":
    main(SWEEP)
