"""Writing recordings: in the format that the name's ending asks for, as like the original as it
allows, and whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from trainer.recordings import UNKNOWN_FRAMES, Samples

_FORMATS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aiff": "AIFF",
    ".aif": "AIFF",
    ".caf": "CAF",
    ".w64": "W64",
    ".rf64": "RF64",
}
WRITTEN_ENDINGS = tuple(_FORMATS)

_WAV_LIKE = ("WAV", "WAVEX", "RF64")
_WAV_LIMIT_BYTES = 2**32 - 2**20
_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}
"""Of a sample; 4 for what is not named is enough."""
_SUBTYPES = {".opus": "OPUS"}
"""Where an ending means more than a container."""
_FINER_THAN_16_BITS = ("FLOAT", "DOUBLE", "PCM_32", "PCM_24")
_KEEPS_BEYOND_1 = ("FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_III")
_FRAMES_AT_ONCE = 1 << 16
"""libsndfile's Vorbis encoder keeps a whole write on the stack: a few millions end the process."""
_VORBIS_LIMIT_HZ, _VORBIS_CHANNELS = 200_000, 255
"""More of either ends the process too."""


def check_ending(path: Path) -> None:
    """Raise ValueError for a name that no format is known for."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"OUT={path}; must end with one of {', '.join(WRITTEN_ENDINGS)}")


@dataclass(kw_only=True)
class Written:
    """What is known of a file once it is written."""

    frames: int = 0
    clipped: int = 0
    """Samples cut off at full scale."""
    notes: list[str] = field(default_factory=list)
    """What the format did not allow to keep."""


class SoundWriter:
    """An open file. Blocks are float32 [frame, channel]."""

    def __init__(self, file: soundfile.SoundFile, path: Path) -> None:
        self._file = file
        self._path = path
        self.written = Written()

    def write(self, block: Samples) -> None:
        """Append a block. Raises OSError where it cannot be written."""
        with self._naming_the_disk():
            for first in range(0, len(block), _FRAMES_AT_ONCE):
                self._file.write(block[first : first + _FRAMES_AT_ONCE])
        self.written.frames += len(block)
        if self._file.subtype not in _KEEPS_BEYOND_1:
            self.written.clipped += int(np.count_nonzero(np.abs(block) > 1.0))

    def close(self) -> None:
        """Write what is held back. Raises OSError where that fails."""
        with self._naming_the_disk():
            self._file.close()

    @contextlib.contextmanager
    def _naming_the_disk(self) -> Iterator[None]:
        try:
            yield
        except soundfile.LibsndfileError as error:  # which says of a full disk "System error"
            reason = "cannot be written: is the disk full?"
            raise OSError(errno.EIO, reason, str(self._path)) from error


@contextlib.contextmanager
def open_writer(path: Path, *, like: soundfile.SoundFile) -> Iterator[SoundWriter]:
    """Write a recording with the rate, channels, sample format and tags of another.

    Folders are made for it. The sample format (subtype) is kept where the format of `path` has it,
    and is that format's most exact integer or its usual one otherwise. The file appears under its
    name when the context ends without an error. Raises ValueError where the format cannot hold
    such a recording, OSError where the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    subtype = _subtype_of(path, like)
    format_name = _format_of(path, subtype, like)
    try:
        with _open(partial, path, format_name, subtype, like) as file:
            writer = SoundWriter(file, path)
            writer.written.notes += _copy_tags(like, file)
            if like.subtype in _FINER_THAN_16_BITS and subtype in ("PCM_16", "PCM_24"):
                if subtype != like.subtype:
                    writer.written.notes.append(f"{like.subtype} samples became {subtype}")
            yield writer
            writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _open(
    partial: Path, path: Path, format_name: str, subtype: str, like: soundfile.SoundFile
) -> soundfile.SoundFile:
    partial.touch()  # says what is wrong with the place, where libsndfile does not
    sound = f"{like.channels} channels at {like.samplerate} Hz"
    wrong = f"OUT={path}; must be of a format that holds {sound}"
    is_too_much = like.samplerate > _VORBIS_LIMIT_HZ or like.channels > _VORBIS_CHANNELS
    if subtype == "VORBIS" and is_too_much:
        raise ValueError(
            f"{wrong}: Vorbis ends at {_VORBIS_LIMIT_HZ} Hz, {_VORBIS_CHANNELS} channels"
        )
    try:
        return soundfile.SoundFile(
            str(partial), "w", like.samplerate, like.channels, subtype, format=format_name
        )
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise ValueError(f"{wrong}: {reason}") from error


def _subtype_of(path: Path, like: soundfile.SoundFile) -> str:
    ending = path.suffix.lower()
    if ending in _SUBTYPES:
        return _SUBTYPES[ending]
    finest = ["PCM_24"] if like.subtype in _FINER_THAN_16_BITS else []
    for subtype in (like.subtype, *finest):
        if soundfile.check_format(_FORMATS[ending], subtype):
            return str(subtype)
    return str(soundfile.default_subtype(_FORMATS[ending]))


def _format_of(path: Path, subtype: str, like: soundfile.SoundFile) -> str:
    name = _FORMATS[path.suffix.lower()]
    if name != "WAV":
        return name
    size = like.frames * like.channels * _BYTES.get(subtype, 4)
    if like.frames < UNKNOWN_FRAMES and size > _WAV_LIMIT_BYTES:
        return "RF64"  # whose lengths have 64 bits
    return like.format if like.format in _WAV_LIKE else name


def _copy_tags(source: soundfile.SoundFile, target: soundfile.SoundFile) -> list[str]:
    lost = []
    for name, text in source.copy_metadata().items():
        if not text:
            continue
        try:
            setattr(target, name, text)
        except soundfile.LibsndfileError:
            lost.append(name)
    return [f"{target.format} does not keep {', '.join(lost)}"] if lost else []
