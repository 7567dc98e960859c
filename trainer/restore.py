"""Recordings through a trained net: any length, rate and channel count in, the same out.

Everything streams: memory does not grow with the recording. Channels go through the net each by
itself, at 44.1 kHz.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainer.config import MAX_SHIFT_SEMITONES, SAMPLE_RATE_HZ
from trainer.damage import shift_ratio
from trainer.net import Net
from trainer.pitch import shift_pitch
from trainer.recordings import (
    UNKNOWN_FRAMES,
    Samples,
    UnusableRecording,
    find_recordings,
    open_stream,
    read_blocks,
)
from trainer.sound_files import Written, check_ending, open_writer
from trainer.streams import Pieces, Stream, add, apply_in_pieces, resample
from trainer.trained import restore_clips

_FADE_SAMPLES = 1024
_ALLOWED_SHIFTS = f"semitones from -{MAX_SHIFT_SEMITONES} to {MAX_SHIFT_SEMITONES}, not 0"

Process = Callable[[Stream, int], Stream]
"""What is done to a stream of a rate in Hz: a stream of the same rate and about its length."""


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """What a net does to a stream.

    A recording of another rate than 44.1 kHz gets what the net changes added to it at its own rate:
    what lies above 22 kHz, and all that the net leaves alone, stays as it was.
    """

    net: Net
    """In eval mode."""
    device: torch.device
    core_samples: int = 20 * SAMPLE_RATE_HZ
    """How much of a recording a piece is there for; memory grows with it, repeated work shrinks."""

    def __call__(self, stream: Stream, rate_hz: int) -> Stream:
        """Return the restored stream."""
        kept, changed = itertools.tee(stream)
        changes = self._apply(
            resample(changed, from_hz=rate_hz, to_hz=SAMPLE_RATE_HZ), self._change
        )
        return add(kept, resample(changes, from_hz=SAMPLE_RATE_HZ, to_hz=rate_hz))

    def after_shift(self, semitones: float) -> Process:
        """Return the process that shifts the pitch and then restores.

        Raises ValueError unless `semitones` lies in -12..12 and is not 0.
        """
        if not 0 < abs(semitones) <= MAX_SHIFT_SEMITONES:  # also refuses NaN
            raise ValueError(f"shift={semitones:g}; must be {_ALLOWED_SHIFTS}")
        ratio = 2 ** (semitones / 12)

        def process(stream: Stream, rate_hz: int) -> Stream:
            at_net = resample(stream, from_hz=rate_hz, to_hz=SAMPLE_RATE_HZ)
            restored = self._apply(shift_pitch(at_net, ratio), self._restore)
            return resample(restored, from_hz=SAMPLE_RATE_HZ, to_hz=rate_hz)

        return process

    def _apply(self, stream: Stream, function: Callable[[Samples], Samples]) -> Stream:
        pieces = Pieces.for_reach(
            self.net.reach_samples,
            grid_samples=self.net.grid_samples,
            core_samples=self.core_samples,
            fade_samples=_FADE_SAMPLES,
        )
        return apply_in_pieces(stream, function, pieces)

    def _restore(self, piece: Samples) -> Samples:
        channels = torch.from_numpy(np.ascontiguousarray(piece.T))
        # One after the other: a piece is long enough to keep a GPU busy, and memory stays small.
        restored = [restore_clips(self.net, c[None].to(self.device)).cpu() for c in channels]
        return torch.cat(restored).numpy().T

    def _change(self, piece: Samples) -> Samples:
        return self._restore(piece) - piece


def damage(semitones: int) -> Process:
    """Return the process that shifts by so many semitones and back, as training's damage does.

    Raises ValueError unless `semitones` lies in -12..12 and is not 0.
    """
    if not 0 < abs(semitones) <= MAX_SHIFT_SEMITONES:
        raise ValueError(f"shift={semitones}; must be whole and {_ALLOWED_SHIFTS}")
    ratio = float(shift_ratio(semitones))

    def process(stream: Stream, rate_hz: int) -> Stream:
        at_44k = resample(stream, from_hz=rate_hz, to_hz=SAMPLE_RATE_HZ)
        damaged = shift_pitch(shift_pitch(at_44k, ratio), 1 / ratio)
        return resample(damaged, from_hz=SAMPLE_RATE_HZ, to_hz=rate_hz)

    return process


def with_gain(process: Process, gain_db: float) -> Process:
    """Return a process whose result is louder by so many dB, or quieter below 0."""
    factor = np.float32(10 ** (gain_db / 20))

    def louder(stream: Stream, rate_hz: int) -> Stream:
        return (factor * block for block in process(stream, rate_hz))

    return louder


@dataclass(frozen=True, kw_only=True)
class Job:
    """One recording to read, and where its result goes."""

    source: Path
    target: Path


def plan_jobs(source: Path, target: Path, *, force: bool) -> list[Job]:
    """Return what there is to do for a recording, or for each in a folder, whose tree is kept.

    Raises ValueError, before anything is written, where there is nothing to read, a name's ending
    is not known, or something would be replaced without `force`; an original never is.
    """
    if not source.exists():
        raise ValueError(f"IN={source}; must be a recording or a folder of them, and is not there")
    jobs = _folder_jobs(source, target) if source.is_dir() else [_file_job(source, target)]
    for job in jobs:
        check_ending(job.target)
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not force:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ValueError(f"OUT={existing[0]}{others}; must not exist yet, or --force replaces it")
    return jobs


def total_seconds(jobs: Iterable[Job]) -> float:
    """Return about how much audio there is, as far as the files tell before they are read."""
    seconds = 0.0
    for job in jobs:
        with contextlib.suppress(UnusableRecording, OSError), open_stream(job.source) as recording:
            if recording.frames < UNKNOWN_FRAMES:
                seconds += recording.frames / recording.samplerate
    return seconds


@dataclass(frozen=True, kw_only=True)
class Processed:
    """What came of one recording."""

    seconds: float
    notes: tuple[str, ...]


def process_file(
    job: Job, process: Process, *, on_progress: Callable[[float], object]
) -> Processed:
    """Read, process and write one recording; `on_progress` is told the seconds written.

    Raises ValueError naming the file and what is wrong, and leaves no file then.
    """
    try:
        return _process_file(job, process, on_progress)
    except UnusableRecording as error:
        raise ValueError(f"IN={job.source}; must be a usable recording: {error}") from error
    except OSError as error:
        place = error.filename or job.target
        raise ValueError(f"{place}: {error.strerror or error}") from error


class _Counted:
    """A stream that knows how many frames it has given."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.frames = 0

    def begun(self) -> Stream:
        """Return the stream. Raises UnusableRecording when there is nothing in it."""
        first = next(self._stream, None)
        if first is None:
            raise UnusableRecording("empty")
        return self._counting(itertools.chain([first], self._stream))

    def _counting(self, stream: Stream) -> Stream:
        for block in stream:
            self.frames += len(block)
            yield block


def _process_file(job: Job, process: Process, on_progress: Callable[[float], object]) -> Processed:
    with open_stream(job.source) as recording:
        rate_hz = recording.samplerate
        with open_writer(job.target, like=recording) as writer:
            source = _Counted(read_blocks(recording))
            for block in _only_finite(process(source.begun(), rate_hz)):
                fitting = block[: source.frames - writer.written.frames]
                writer.write(fitting)
                on_progress(len(fitting) / rate_hz)
            missing = source.frames - writer.written.frames
            writer.write(np.zeros((missing, recording.channels), np.float32))
            return Processed(seconds=source.frames / rate_hz, notes=_notes(writer.written))


def _only_finite(stream: Stream) -> Stream:
    """Yield a stream's blocks. Raises UnusableRecording at one with NaN or infinite samples."""
    while True:
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at here
            block = next(stream, None)
        if block is None:
            return
        if not np.isfinite(block).all():
            raise UnusableRecording("its result has NaN or infinite samples")
        yield block


def _notes(written: Written) -> tuple[str, ...]:
    clipped = f"samples cut off at full scale: {written.clipped} (quieter with --gain)"
    return (*written.notes, *([clipped] if written.clipped else []))


def _file_job(source: Path, target: Path) -> Job:
    place = target / source.name if target.is_dir() else target
    if place.exists() and place.samefile(source):
        raise ValueError(f"OUT={place}; must be another file than IN: an original is not replaced")
    return Job(source=source, target=place)


def _folder_jobs(source: Path, target: Path) -> list[Job]:
    if target.exists() and not target.is_dir():
        raise ValueError(f"OUT={target}; must be a folder, as IN is")
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"OUT={target}; must lie outside IN, {source}")
    found = find_recordings(source)
    if not found:
        raise ValueError(f"IN={source}; must hold recordings, and no name in it ends like one")
    return [Job(source=path, target=target / path.relative_to(source)) for path in found]
