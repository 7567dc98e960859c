"""Which clips and shifts a training step and a validation get, and drawing them ahead of time.

Nothing here keeps state between steps: a resumed trial asks for the step it is at.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from trainer.config import ValidationConfig
from trainer.data import DataSet, Recording
from trainer.recordings import Samples

Shifts = npt.NDArray[np.int64]
Batch = tuple[Samples, Shifts]
"""Clips float32 [clip, sample] at 44.1 kHz, and the shift of each in semitones [clip]."""

_SILENT_RMS = 1e-3
"""-60 dBFS."""
_DRAWS = 4
_CANDIDATES = 3


def training_batch(
    data: DataSet,
    *,
    clip_samples: int,
    batch_size: int,
    shifts: tuple[int, ...],
    seed: int,
    step: int,
) -> Batch:
    """Draw the clips and shifts of one step: a pure function of its arguments.

    Every second of training audio is as likely to be drawn as every other. A recording shorter
    than a clip lies whole in it, anywhere, among zeros. Silent draws are drawn again, a few times.
    """
    random = np.random.default_rng([seed, step])
    clips = np.zeros((batch_size, clip_samples), np.float32)
    for clip in clips:
        for _ in range(_DRAWS):
            _draw_clip(clip, data, random)
            if _rms(clip) >= _SILENT_RMS:
                break
    return clips, np.asarray(shifts, np.int64)[random.integers(len(shifts), size=batch_size)]


def validation_clips(data: DataSet, config: ValidationConfig) -> Batch:
    """Return the fixed clips of every validation: the held-out recordings in turn.

    They follow from the contents of the recordings and from `config` alone. Each combination of
    recording and shift comes once before one comes again.
    """
    count, kinds = len(data.validation), len(config.shifts)
    period = math.lcm(count, kinds)
    clips = np.zeros((config.clips, config.clip_samples), np.float32)
    shifts = np.zeros(config.clips, np.int64)
    for i in range(config.clips):
        recording = data.validation[i % count]
        clips[i] = _fixed_clip(data, recording, config.clip_samples, turn=i // count)
        # Without the second term a recording would meet the same few shifts over and over.
        shifts[i] = config.shifts[(i + i // period) % kinds]
    return clips, shifts


class Prefetcher:
    """Batches of the steps `start` up to but not including `stop`, made ahead by one thread.

    An error of `make_batch` is raised where its batch is asked for. Leaving the context ends the
    thread.
    """

    def __init__(
        self, make_batch: Callable[[int], Batch], *, start: int, stop: int, ahead: int = 2
    ) -> None:
        self.wait_seconds = 0.0
        """Time that the consumer has waited for batches so far."""
        self._make_batch = make_batch
        self._steps = iter(range(start, stop))
        self._ahead = ahead
        self._pending: deque[Future[Batch]] = deque()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")

    def __enter__(self) -> Self:
        self._submit()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._worker.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._pending:
            raise StopIteration
        asked = time.perf_counter()
        batch = self._pending.popleft().result()
        self.wait_seconds += time.perf_counter() - asked
        self._submit()
        return batch

    def _submit(self) -> None:
        while len(self._pending) < self._ahead and (step := next(self._steps, None)) is not None:
            self._pending.append(self._worker.submit(self._make_batch, step))


def _draw_clip(clip: Samples, data: DataSet, random: np.random.Generator) -> None:
    """Fill clip [sample] from a random place."""
    ends = data.training_ends
    recording = data.training[np.searchsorted(ends, random.integers(ends[-1]), side="right")]
    spare = recording.samples - len(clip)
    place = int(random.integers(abs(spare) + 1))
    if spare >= 0:
        clip[:] = data.clip(recording, place, len(clip))
    else:
        clip[:place] = 0.0
        clip[place:] = data.clip(recording, 0, len(clip) - place)


def _fixed_clip(data: DataSet, recording: Recording, length: int, *, turn: int) -> Samples:
    """Return float32 [length]: the loudest of a few places, other ones at each turn."""
    random = np.random.default_rng([int(recording.content_hash, 16), turn])
    starts = random.integers(max(1, recording.samples - length + 1), size=_CANDIDATES)
    return max((data.clip(recording, int(start), length) for start in starts), key=_rms)


def _rms(signal: Samples) -> float:
    return math.sqrt(float(np.dot(signal, signal)) / len(signal))
