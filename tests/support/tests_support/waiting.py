"""Waiting for what other processes do."""

import time


def wait_until(condition, *, seconds=60.0):
    """Wait for a condition to become true, and return what it gave; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (given := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return given
