"""Where a sweep runs: a Ray head on this machine, and the variables that each process is given."""
