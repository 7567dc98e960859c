"""Which net, optimizer, loss and clips are best together?"""

from search_spaces import everything
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(name="everything", space_for=everything.space_for)

if __name__ == "__main__":
    main(SWEEP)
