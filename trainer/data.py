"""A data set: recordings told apart by content, split, decoded once and memory mapped.

Decoding is in recordings.py, decoded samples are in sample_cache.py, the clips of a step in
batches.py. In the cache folder lies `files.json` too, what is known of the user's files. All in it
can be deleted at any time.
"""

import errno
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.demo import DEMO_NAMES, DEMO_REVISION, demo_recordings
from trainer.recordings import (
    ENDINGS,
    Memo,
    Samples,
    UnusableRecording,
    decode,
    find_recordings,
    write_atomically,
)
from trainer.sample_cache import Stored, building, find_stored, store

VALIDATION_SHARE = 0.15
"""Share of all possible content hashes whose recordings are held out."""

_FEWEST = 2
_NAMES_SHOWN = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One usable recording, by where its samples lie in the data set's file."""

    name: str
    content_hash: str
    """64 hex digits. Not of the decoded samples: decoders differ in last bits."""
    start: int
    """Its first sample in the file."""
    samples: int
    """Its length at 44.1 kHz."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """Recordings to train on and recordings held out, each ordered by content hash."""

    fingerprint: str
    """16 hex digits for the contents, whatever names and places they have."""
    training: tuple[Recording, ...]
    validation: tuple[Recording, ...]
    skipped: tuple[tuple[str, str], ...]
    """Name and reason of each file that is not used."""
    samples: Samples
    """Memory-mapped samples of all recordings, one after the other."""
    check_unchanged: Callable[[], None] = lambda: None
    """Raises ValueError when somebody has written over the samples."""

    def clip(self, recording: Recording, start: int, length: int) -> Samples:
        """Return float32 [length] from a sample of a recording on, zeros after its end.

        Raises ValueError when the cache was written to since it was opened.
        """
        self.check_unchanged()
        first = recording.start + start
        after = min(first + length, recording.start + recording.samples)
        clip = np.zeros(length, np.float32)
        clip[: max(0, after - first)] = self.samples[first:after]
        return clip

    @functools.cached_property
    def training_ends(self) -> npt.NDArray[np.int64]:
        """Return the running total of samples after each training recording."""
        return np.cumsum([recording.samples for recording in self.training])


class DataAway(ValueError):
    """The recordings cannot be read now, or are not the ones that were asked for."""


def open_data(path: str, cache: Path | str) -> DataSet:
    """Open a folder of recordings, or `demo`, decoding into the cache what is not yet there.

    One warning names the files that cannot be used. Raises DataAway where the folder is not there
    or holds fewer than two usable recordings, ValueError where the cache cannot be made.
    """
    cache = _make_cache(cache)
    library = _open_demo(cache) if path == "demo" else _open_folder(path, cache)
    if len(library.stored) < _FEWEST:
        raise DataAway(f"data.path={path}; must be {_too_few(library)}")
    _warn_of_skipped(library)
    training, validation = _split(library.recordings())
    samples, check_unchanged = library.stored.open()
    return DataSet(
        fingerprint=library.stored.fingerprint,
        training=training,
        validation=validation,
        skipped=library.skipped,
        samples=samples,
        check_unchanged=check_unchanged,
    )


@dataclass(frozen=True, kw_only=True)
class _Library:
    """What a source of recordings turned out to hold."""

    stored: Stored
    names: Mapping[str, str]
    """By content hash."""
    found: int
    skipped: tuple[tuple[str, str], ...] = ()

    def recordings(self) -> list[Recording]:
        lengths = self.stored.lengths
        starts = np.cumsum([0, *lengths.values()]).tolist()
        return [
            Recording(name=self.names[key], content_hash=key, start=start, samples=samples)
            for start, (key, samples) in zip(starts, lengths.items(), strict=False)
        ]


def _make_cache(cache: Path | str) -> Path:
    folder = Path(os.path.expanduser(cache))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        allowed = f"a folder that can be made ({error.strerror})"
        raise ValueError(f"data.cache={cache}; must be {allowed}") from error
    return folder


def _open_demo(cache: Path) -> _Library:
    names = {_demo_hash(name): name for name in DEMO_NAMES}
    stored = find_stored(cache, names)
    if stored is None:
        with building(cache):
            stored = find_stored(cache, names) or _synthesize(cache)
    return _Library(stored=stored, names=names, found=len(names))


def _synthesize(cache: Path) -> Stored:
    synthesized = {_demo_hash(name): samples for name, samples in demo_recordings()}
    return store(cache, sorted(synthesized.items()))


def _demo_hash(name: str) -> str:
    """Return what stands for a demo recording's content.

    Hashed samples would give each kind of processor a data set of its own: sines differ in last
    bits. The text is chosen so that a guitar, a speaker, a choir and drums are held out.
    """
    return hashlib.sha256(f"demo recording {DEMO_REVISION} {name}".encode()).hexdigest()


def _open_folder(path: str, cache: Path) -> _Library:
    folder = Path(os.path.expanduser(path))
    if not path or not folder.is_dir():
        raise DataAway(f"data.path={path}; must be an existing folder of recordings, or demo")
    memo = Memo(cache / "files.json")
    files = {file.relative_to(folder).as_posix(): file for file in find_recordings(folder)}
    hashes, unreadable = _hash_contents(files, memo)
    names = {content_hash: name for name, content_hash in reversed(hashes.items())}
    lost: dict[str, str] = {}
    stored = _find_decoded(cache, names, memo)
    if stored is None:
        with building(cache):
            memo.catch_up()
            stored = _find_decoded(cache, names, memo)  # by who built it while this one waited
            if stored is None:
                _log.info("decoding %d recordings of %s", len(names), folder)
                paths = {content_hash: files[name] for content_hash, name in names.items()}
                stored = store(cache, _decode_usable(paths, memo.verdicts, lost))
            memo.save()
    memo.save()
    reasons = memo.verdicts | lost
    unusable = {name: reason for name, key in hashes.items() if (reason := reasons[key])}
    skipped = tuple(sorted((unreadable | unusable).items()))
    return _Library(stored=stored, names=names, found=len(files), skipped=skipped)


def _find_decoded(cache: Path, names: Mapping[str, str], memo: Memo) -> Stored | None:
    """Return the recordings of these content hashes where it is known which are usable, and those
    are in the cache."""
    if not memo.verdicts.keys() >= names.keys():
        return None
    return find_stored(cache, [key for key in names if memo.verdicts[key] is None])


def _hash_contents(files: Mapping[str, Path], memo: Memo) -> tuple[dict[str, str], dict[str, str]]:
    """Return content hashes by name, and by name why a file cannot be read."""
    hashes: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for name, file in files.items():
        try:
            hashes[name] = memo.content_hash(file)
        except OSError as error:
            unreadable[name] = f"unreadable: {error.strerror}"
    return hashes, unreadable


def _decode_usable(
    paths: Mapping[str, Path], verdicts: dict[str, str | None], lost: dict[str, str]
) -> Iterator[tuple[str, Samples]]:
    """Yield content hash and samples by rising hash, and write down each verdict.

    A file lost since it was hashed has no verdict: it may come back.
    """
    for content_hash, path in sorted(paths.items()):
        if verdicts.get(content_hash) is not None:
            continue
        try:
            samples, reason = _decode_as(content_hash, path)
        except OSError as error:
            lost[content_hash] = f"unreadable: {error.strerror}"
            continue
        verdicts[content_hash] = reason
        if samples is not None:
            yield content_hash, samples


def _decode_as(content_hash: str, path: Path) -> tuple[Samples | None, str | None]:
    """Return the samples, or why they are not usable.

    Raises OSError where the file cannot be read, or holds something else by now: its samples must
    not pass for those of the content that was hashed.
    """
    samples, reason = None, None
    try:
        samples = decode(path)
    except UnusableRecording as error:
        reason = str(error)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != content_hash:
            raise OSError(errno.EBUSY, "changed while it was read", str(path))
    return samples, reason


def _split(
    recordings: Sequence[Recording],
) -> tuple[tuple[Recording, ...], tuple[Recording, ...]]:
    """Return training and held-out recordings, each decided by its own content alone.

    Where that leaves one side empty, as in a small folder, the recording of lowest hash is held
    out, or that of highest hash trained on, and a warning says so.
    """
    held_out = {r.content_hash for r in recordings if _position(r) < VALIDATION_SHARE}
    if not held_out:
        held_out = {recordings[0].content_hash}
        _log.warning("few recordings: %s is held out for validation", recordings[0].name)
    elif len(held_out) == len(recordings):
        held_out.remove(recordings[-1].content_hash)
        _log.warning("few recordings: only %s is left to train on", recordings[-1].name)
    training = tuple(r for r in recordings if r.content_hash not in held_out)
    return training, tuple(r for r in recordings if r.content_hash in held_out)


def _position(recording: Recording) -> float:
    """Return where in [0, 1) the content hash lies."""
    return int(recording.content_hash[:8], 16) / 2.0**32


def _warn_of_skipped(library: _Library) -> None:
    skipped = library.skipped
    if not skipped:
        return
    text = _describe(skipped, _NAMES_SHOWN)
    if len(skipped) > _NAMES_SHOWN:
        list_path = library.stored.samples_path.with_name("skipped.txt")
        write_atomically(list_path, "".join(f"{name}: {reason}\n" for name, reason in skipped))
        text += f", all listed in {list_path}"
    _log.warning("skipped %d of %d recordings: %s", len(skipped), library.found, text)


def _describe(skipped: Sequence[tuple[str, str]], names: int) -> str:
    shown = "; ".join(f"{name} ({reason})" for name, reason in skipped[:names])
    more = len(skipped) - names
    return f"{shown}; ... and {more} more" if more > 0 else shown


def _too_few(library: _Library) -> str:
    text = f"a folder with {_FEWEST} or more usable recordings of different content"
    if library.found == 0:
        return f"{text}: no file in it ends with {', '.join(ENDINGS)}"
    text += f": {library.found} found, {len(library.stored)} usable"
    if library.skipped:
        text += f", {len(library.skipped)} skipped: {_describe(library.skipped, 5)}"
    return text
