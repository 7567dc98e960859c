"""Which kernel size and dilation of the depthwise convolutions are worth their time?"""

from search_spaces import kernel_size
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(
    name="kernel_size",
    space=kernel_size.suggest,
    known_points=kernel_size.KNOWN_POINTS,
)

if __name__ == "__main__":
    main(SWEEP)
