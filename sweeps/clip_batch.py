"""Are few long clips or many short ones better, at equal audio per step?"""

from search_spaces import clip_batch
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(name="clip_batch", space_for=clip_batch.space_for)

if __name__ == "__main__":
    main(SWEEP)
