"""Recordings in a folder: which there are, what is known of them, and their samples.

How they make up a data set, and where decoded samples are kept, is in data.py.
"""

import array
import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when first used: a second that most trials can do without
import soundfile

from trainer.config import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)

ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
"""What a recording's name ends with, in either case."""

MIN_SECONDS = 0.5
MIN_PEAK = 1e-3
"""-60 dBFS: a recording that stays below is silent."""
MAX_PEAK = 16.0
"""+24 dBFS: a floating-point file above it is not scaled to [-1, 1]."""
RATES_HZ = (4_000, 384_000)
"""Lowest and highest sample rate that is believed."""

PREPROCESSING_REVISION = 1
"""Raised whenever a file is decoded to other samples, or judged otherwise, than before."""

_BLOCK_VALUES = 1 << 20
_HASH = re.compile("[0-9a-f]{64}")
UNKNOWN_FRAMES = 2**63 - 1
"""What libsndfile says where a file does not tell its length."""
_SYSTEM_ERROR = 2
"""libsndfile's SF_ERR_SYSTEM."""


class UnusableRecording(ValueError):
    """A file that holds no usable recording; its text says why in a few words."""


def find_recordings(folder: Path) -> list[Path]:
    """Return every recording below a folder, sorted, by the endings of their names.

    Links are followed, each folder is entered once. Hidden files and folders (macOS's `._*` too)
    are left out. A link to nothing is kept: reading it says what is wrong. A folder that cannot be
    read is named in a warning.
    """
    found: list[Path] = []
    entered: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True, onerror=_warn_of_folder):
        place = os.path.realpath(parent)
        if place in entered:
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(parent, name) for name in names if _is_recording(parent, name)]
    return sorted(found)


def decode(path: Path) -> Samples:
    """Return a recording as mono float32 [sample] at 44.1 kHz, channels averaged.

    Raises UnusableRecording where the file is not audio, is damaged, has fewer samples than it
    claims, or holds NaN, less than MIN_SECONDS, or silence. Of a WAV, AIFF, Ogg or MP3 file cut
    short nothing tells what is missing (an MP3's length is an estimate): they are just shorter.
    Raises OSError where this time the file cannot be read.
    """
    mono, rate_hz = read_mono(path)
    seconds = len(mono) / rate_hz
    if len(mono) == 0:
        raise UnusableRecording("empty")
    if seconds < MIN_SECONDS:
        raise UnusableRecording(f"too short: {seconds:.2f} s, under {MIN_SECONDS} s")
    if max(mono.max(), -mono.min()) < MIN_PEAK:
        raise UnusableRecording("silent")
    return resample(mono, rate_hz)


def read_mono(path: Path) -> tuple[Samples, int]:
    """Return a recording, however short or silent, as float32 [sample] at its own rate in Hz.

    Channels are averaged, one copy is held. Raises as `decode` does.
    """
    mono = array.array("f")
    with open_stream(path) as stream:
        for block in read_blocks(stream):
            mono.frombytes(block.mean(axis=1).tobytes())  # [frame, channel] -> [frame]
        return np.frombuffer(mono, dtype=np.float32), stream.samplerate


def resample(samples: Samples, rate_hz: int) -> Samples:
    """Return samples at 44.1 kHz: flat to 0.9 of the lower Nyquist rate, -100 dB from there on.

    A polyphase filter grows with the larger term of the rates' ratio, torchaudio's with the
    product of both: 44,056 Hz took 12 s and 2 GB there. No usual ratio meets the limit here.
    """
    ratio = Fraction(SAMPLE_RATE_HZ, rate_hz).limit_denominator(1 << 15)
    if ratio == 1:
        return samples
    larger = max(ratio.numerator, ratio.denominator)
    taps = scipy.signal.firwin(2 * 64 * larger + 1, 0.95 / larger, window=("kaiser", 10.06))
    window = taps.astype(np.float32)  # float64 taps would bring float64 samples
    resampled = scipy.signal.resample_poly(
        samples, ratio.numerator, ratio.denominator, window=window
    )
    return np.asarray(resampled, dtype=np.float32)


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a recording for `read_blocks`. Errors as `decode` has them, inside the context too."""
    try:
        with _Stream(str(path)) as stream:
            low, high = RATES_HZ
            if not low <= stream.samplerate <= high:
                rate = f"sample rate {stream.samplerate} Hz"
                raise UnusableRecording(f"{rate}; {low} to {high} are read")
            yield stream
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM_ERROR:
            raise OSError(errno.EIO, "cannot be read", str(path)) from error
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise UnusableRecording(f"unreadable: {reason}") from error
    except UnicodeEncodeError as error:
        raise UnusableRecording("unreadable: its name is not valid text") from error


def read_blocks(stream: soundfile.SoundFile) -> Iterator[Samples]:
    """Yield all of a recording as float32 [frame, channel], at its own rate, in blocks.

    Raises UnusableRecording at NaN, values far out of scale, and an end before the one claimed.
    """
    frames_at_once, frames = max(1, _BLOCK_VALUES // stream.channels), 0
    while len(block := stream.read(frames_at_once, dtype="float32", always_2d=True)):
        _check_values(block)
        frames += len(block)
        yield block
    is_exact = stream.format != "MP3" and stream.frames != UNKNOWN_FRAMES
    if is_exact and frames < stream.frames:
        raise UnusableRecording(f"cut short: {frames} of {stream.frames} samples")


class Memo:
    """What earlier looks at files told, so that a second look costs one stat a file.

    A file is known again by absolute path, size and modification time; a verdict (None: usable,
    else why not) belongs to contents, whatever files hold them. It only ever saves time: damaged
    or deleted it is made anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes, self.verdicts = _read_memo(path)
        self._saved = (dict(self._hashes), dict(self.verdicts))

    def content_hash(self, file: Path) -> str:
        """Return SHA-256 of the file's bytes in hex. Raises OSError where it cannot be read."""
        status = file.stat()
        key = f"{os.path.abspath(file)}|{status.st_size}|{status.st_mtime_ns}"
        if key not in self._hashes:
            with file.open("rb") as stream:
                self._hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._hashes[key]

    def catch_up(self) -> None:
        """Learn what other processes have found out since."""
        hashes, verdicts = _read_memo(self._path)
        self._hashes |= hashes
        self.verdicts |= verdicts

    def save(self) -> None:
        """Write what was learnt, together with what other processes wrote in the meantime."""
        if self._saved == (self._hashes, self.verdicts):
            return
        hashes, verdicts = _read_memo(self._path)
        content = {
            "decoder": _decoder(),
            "hashes": hashes | self._hashes,
            "verdicts": verdicts | self.verdicts,
        }
        # A cache that cannot be written (on Windows: a memo just being read) costs time only.
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(content))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see the old text or the new, and never a part."""
    partial = path.with_name(f"{path.name}-{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _warn_of_folder(error: OSError) -> None:
    _log.warning("skipped folder %s: %s", error.filename, error.strerror)


def _is_recording(parent: str, name: str) -> bool:
    if name.startswith(".") or not name.lower().endswith(ENDINGS):
        return False
    path = os.path.join(parent, name)
    return os.path.isfile(path) or not os.path.exists(path)


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Reads on from where it is.

    soundfile seeks after every block to where it already is. That spoils the next block of an
    MP3, and fails on a FLAC file of unknown length.
    """

    def seekable(self) -> bool:
        return False


def _check_values(block: Samples) -> None:
    peak = float(np.abs(block).max())
    if not np.isfinite(peak):
        raise UnusableRecording("NaN or infinite samples")
    if peak > MAX_PEAK:
        raise UnusableRecording(f"peak {peak:.4g}; samples must lie in [-1, 1]")


def _decoder() -> list[object]:
    """Return what verdicts depend on beside contents."""
    return [PREPROCESSING_REVISION, soundfile.__libsndfile_version__]


def _read_memo(path: Path) -> tuple[dict[str, str], dict[str, str | None]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        hashes, verdicts = dict(content["hashes"]), dict(content["verdicts"])
        is_current = content["decoder"] == _decoder()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, {}
    are_hashes = all(isinstance(h, str) and _HASH.fullmatch(h) for h in hashes.values())
    are_reasons = all(reason is None or isinstance(reason, str) for reason in verdicts.values())
    if not (are_hashes and are_reasons):
        return {}, {}
    return hashes, verdicts if is_current else {}
