"""SIGINT and SIGTERM as a request to end in good order."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

ONE_SIGNAL_S = 1.0
"""What comes again sooner is the same signal: a process group's and its parent's."""


class EndRequest:
    """A handler that notes that its signal came, for whoever asks."""

    def __init__(self) -> None:
        self.is_made = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note it."""
        self.is_made = True


@contextlib.contextmanager
def stop_on_signal(on_ask: Callable[[str], None]) -> Iterator[threading.Event]:
    """Set an event at the first signal, whose name `on_ask` is told; a second ends the process.

    For the main thread only.
    """
    asked = threading.Event()
    asked_at_s = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at_s
        if asked.is_set():
            if time.monotonic() - asked_at_s > ONE_SIGNAL_S:
                os._exit(128 + number)
            return
        asked_at_s = time.monotonic()
        asked.set()
        on_ask(signal.Signals(number).name)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
