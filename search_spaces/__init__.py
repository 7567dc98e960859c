"""What may vary: one file a space, `suggest(trial) -> {dotted field: value}`; imports nothing."""
