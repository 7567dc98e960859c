"""How deep, how wide and with how many blocks is a waveform net of a given size best?"""

from search_spaces import depth_channels
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(name="depth_channels", space_for=depth_channels.space_for)

if __name__ == "__main__":
    main(SWEEP)
