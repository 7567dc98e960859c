"""Signals of any length as streams of blocks, so that memory does not grow with the recording.

A stream is an iterator of blocks float32 [frame, channel], at least one, of any lengths.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from trainer.recordings import Samples

Stream = Iterator[Samples]


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """How a stream is cut for a function that looks a limited way to each side."""

    core_samples: int
    """What each piece is there for."""
    margin_samples: int
    """What it gets of its neighbours' on either side."""
    fade_samples: int
    """Over how much one piece's result fades into the next one's."""

    @classmethod
    def for_reach(
        cls, reach_samples: int, *, grid_samples: int, core_samples: int, fade_samples: int
    ) -> "Pieces":
        """Choose pieces that give, over all they contribute, what the whole signal would.

        They start on the grid, and their margins hold what the function can see from half a fade
        outside the core.
        """

        def on_grid(samples: int) -> int:
            return -(-samples // grid_samples) * grid_samples

        return cls(
            core_samples=on_grid(max(core_samples, fade_samples)),
            margin_samples=on_grid(reach_samples + fade_samples // 2),
            fade_samples=fade_samples,
        )


def apply_in_pieces(
    stream: Iterable[Samples], function: Callable[[Samples], Samples], pieces: Pieces
) -> Stream:
    """Apply `function`, [frame, channel] to the same shape, to overlapping pieces of a stream.

    Neighbouring results fade linearly into each other.
    """
    core, margin, half = pieces.core_samples, pieces.margin_samples, pieces.fade_samples // 2
    source = _Buffer(stream)
    start, is_last = 0, False
    tail: Samples | None = None
    while not is_last:
        is_last = not source.has(start + core + margin + 1)
        first, low = max(0, start - margin), max(0, start - half)
        end, high = start + core + margin, start + core + half
        if is_last:
            end = high = source.end
        mine = function(source.read(first, end))[low - first : high - first]
        if tail is not None:
            mine = np.concatenate((_fade(tail, mine[: len(tail)]), mine[len(tail) :]))
        kept = len(mine) if is_last else len(mine) - 2 * half
        yield mine[:kept]
        tail = mine[kept:]
        start += core
        source.forget(start - margin)


def resample(stream: Stream, *, from_hz: float, to_hz: float) -> Stream:
    """Change the rate of a stream, by soxr's linear-phase filter and without delay."""
    if from_hz == to_hz:
        return stream
    return _resample(stream, from_hz, to_hz)


def add(one: Stream, other: Stream) -> Stream:
    """Add two streams; what is missing at the end of the second is silent, what is over dropped."""
    source = _Buffer(other)
    start = 0
    for block in one:
        end = start + len(block)
        source.has(end)
        part = source.read(min(start, source.end), min(end, source.end))
        total = block.copy()
        total[: len(part)] += part
        yield total
        start = end
        source.forget(start)


def at_least(stream: Stream, frames: int) -> Stream:
    """Add zeros after a stream that is shorter than `frames`."""
    seen = 0
    block = np.zeros((0, 1), np.float32)
    for block in stream:
        seen += len(block)
        yield block
    if seen < frames:
        yield np.zeros((frames - seen, block.shape[1]), np.float32)


class _Buffer:
    """The part of a stream that is still needed, by absolute position."""

    def __init__(self, stream: Iterable[Samples]) -> None:
        self._stream = iter(stream)
        self._held = next(self._stream)
        self._first = 0

    @property
    def end(self) -> int:
        """Return how many frames have been seen so far."""
        return self._first + len(self._held)

    def has(self, frames: int) -> bool:
        """Read until `frames` have been seen; return whether the stream is that long."""
        missing = frames - self.end
        if missing > 0:
            blocks = [self._held]
            while missing > 0 and (block := next(self._stream, None)) is not None:
                blocks.append(block)
                missing -= len(block)
            self._held = np.concatenate(blocks)
        return missing <= 0

    def read(self, first: int, end: int) -> Samples:
        """Return the frames from `first` up to `end`, which must be held."""
        assert self._first <= first <= end <= self.end
        return self._held[first - self._first : end - self._first]

    def forget(self, before: int) -> None:
        """Let go of what lies before a frame."""
        if before > self._first:
            self._held = self._held[before - self._first :].copy()
            self._first = before


def _fade(old: Samples, new: Samples) -> Samples:
    weight = np.linspace(0, 1, len(new), dtype=np.float32)[:, None]
    return (1 - weight) * old[: len(new)] + weight * new


def _resample(stream: Stream, from_hz: float, to_hz: float) -> Stream:
    first = next(stream)
    channels = first.shape[1]
    resampler = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32", quality="VHQ")
    for block in itertools.chain([first], stream):
        yield resampler.resample_chunk(np.ascontiguousarray(block))
    yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)
