"""Decoded samples in the cache folder, memory mapped: per data set, `<fingerprint>/samples.f32` and
`index.json`. What is not as it was written is not believed.

The index holds the recordings' lengths, a hash of the samples, and when those were written: as long
as that is so, opening reads none of them.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from trainer.config import SAMPLE_RATE_HZ
from trainer.recordings import PREPROCESSING_REVISION, Samples, write_atomically

_ABANDONED_S = 24 * 3600
_BYTES = 4


@dataclass(frozen=True)
class Stored:
    """Decoded recordings in the cache: content hash and length of each, ordered by hash."""

    cache: Path
    lengths: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """Return the data set's, of its content hashes."""
        return _fingerprint(self.lengths)

    @property
    def samples_path(self) -> Path:
        """Return the file of all samples, float32, one recording after the other."""
        return self.cache / self.fingerprint / "samples.f32"

    @property
    def index_path(self) -> Path:
        """Return the file that says what the other holds."""
        return self.samples_path.with_name("index.json")

    def open(self) -> tuple[Samples, "Unchanged"]:
        """Return the memory-mapped samples, and what tells that they still are what they were."""
        unchanged = Unchanged(self.samples_path)
        return np.memmap(self.samples_path, dtype="<f4", mode="r"), unchanged


class Unchanged:
    """A look, before each use, whether a memory-mapped file was written to since it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = path.stat()

    def __call__(self) -> None:
        """Raise ValueError when it was. That another file has its name now does not matter."""
        before = self._status
        with contextlib.suppress(FileNotFoundError):
            now = self._path.stat()
            is_same = (now.st_ino, now.st_dev) == (before.st_ino, before.st_dev)
            if is_same and (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise ValueError(f"data.cache: {self._path} must not change while it is in use")


def find_stored(cache: Path, content_hashes: Iterable[str]) -> Stored | None:
    """Return the data set of just these contents if the cache holds it whole, as it was written."""
    folder = cache / _fingerprint(content_hashes)
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        stored = Stored(cache, dict(sorted(index["lengths"].items())))
        is_whole = folder.name == stored.fingerprint and _is_as_written(stored, index)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return stored if is_whole else None


@contextlib.contextmanager
def building(cache: Path) -> Iterator[None]:
    """Keep other processes from decoding into this cache meanwhile: trials of one machine begin
    together, and one of them decodes for all. The lock goes with its process."""
    with FileLock(cache / "building.lock"):
        yield


def store(cache: Path, decoded: Iterable[tuple[str, Samples]]) -> Stored:
    """Write recordings, ordered by content hash, into the cache.

    Equal contents give equal files, so it does not matter which of several processes comes last.
    The index is written after the samples: without it they are not believed.
    """
    _remove_abandoned(cache)
    partial = cache / f"samples-{uuid.uuid4().hex}.partial"
    digest, lengths = hashlib.sha256(), dict[str, int]()
    try:
        with partial.open("wb") as out:
            for content_hash, samples in decoded:
                content = samples.astype("<f4", copy=False).tobytes()
                out.write(content)
                digest.update(content)
                lengths[content_hash] = len(samples)
        stored = Stored(cache, lengths)
        if find_stored(cache, lengths) is None:
            stored.samples_path.parent.mkdir(exist_ok=True)
            os.replace(partial, stored.samples_path)
            _write_index(stored, digest.hexdigest())
    finally:
        partial.unlink(missing_ok=True)
    return stored


def _fingerprint(content_hashes: Iterable[str]) -> str:
    identity = [PREPROCESSING_REVISION, SAMPLE_RATE_HZ, sorted(content_hashes)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _is_as_written(stored: Stored, index: Mapping[str, object]) -> bool:
    status = stored.samples_path.stat()
    if status.st_size != _BYTES * sum(stored.lengths.values()):
        return False
    if status.st_mtime_ns == index["modified_ns"]:
        return True
    with stored.samples_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != index["sha256"]:
        return False
    with contextlib.suppress(OSError):  # as copied to another place: next time it is known there
        _write_index(stored, digest)
    return True


def _write_index(stored: Stored, digest: str) -> None:
    index = {
        "lengths": stored.lengths,
        "sha256": digest,
        "modified_ns": stored.samples_path.stat().st_mtime_ns,
    }
    write_atomically(stored.index_path, json.dumps(index))


def _remove_abandoned(cache: Path) -> None:
    """Delete what killed processes left half written, a day after they last wrote."""
    for partial in cache.glob("*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                partial.unlink()
