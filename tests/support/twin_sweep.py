"""A sweep that asks what lr_momentum asks: its trials are the same ones."""

from search_spaces import lr_momentum
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(name="twin", space=lr_momentum.suggest, known_points=lr_momentum.KNOWN_POINTS)

if __name__ == "__main__":
    main(SWEEP)
