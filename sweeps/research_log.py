"""What do the research log's runs come to, side by side, and do its verdicts hold?"""

from search_spaces import research_log
from sweeps.engine.run import Sweep, main

SWEEP = Sweep(
    name="research_log",
    space_for=research_log.space_for,
    annotate=research_log.annotate,
    stops_early=False,
)

if __name__ == "__main__":
    main(SWEEP)
