"""A storage root in an object store: every host works in a folder of its own, and what trials leave
there is copied to the store and from it.

The store is the truth: a trial goes on from what is there, on whichever host. A host that was cut
off may still train what another has gone on with: a trial belongs to whoever fetched it last, and
nobody else writes over what that one has left. As long as that is this host, it has all of it, and
more than it has shared.
"""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from filelock import Timeout

from sweeps.engine.object_store import ObjectStore, Stamp, Stamps
from sweeps.engine.root import STORE_PATIENCE_S, Root, TakenOver, is_fingerprint, try_for
from trainer.checkpoint import BEST, LAST, PREVIOUS
from trainer.whole_file import PARTIAL

MIRRORS = "~/.cache/unshift"
"""Of all hosts' folders; each URL has one in it."""

CHECKPOINTS = {LAST, PREVIOUS}
"""Of use to who trains alone."""

_TICK_NS = 2 * 10**9
"""Of a store's clock, and a little more: what is younger may be replaced without a new stamp."""

_MARK = ".unshift"
"""An object that says that the rest are a storage root's."""


@dataclass(frozen=True, kw_only=True)
class MirroredRoot(Root):
    """An object store's prefix, and the folder on this host that mirrors what is used of it."""

    url: str
    store: ObjectStore
    _claims: dict[str, bytes] = field(default_factory=dict)
    """With what this one has marked the trials that it trains as its own."""

    seconds_between_looks: ClassVar[float] = 2.0

    @classmethod
    def open_url(cls, url: str, *, create: bool) -> "MirroredRoot":
        """Find the store, and where it may be new, see that it takes files.

        Raises ValueError for a URL of none, and (unless `create`) where no sweep has written to;
        StoreAway where it does not answer.
        """
        store = ObjectStore(url)
        if create:
            store.write(_MARK, b"")
        elif not store.has(_MARK):
            raise ValueError(f"storage={url}; must be a place that a sweep has written to")
        path = Path(MIRRORS).expanduser() / hashlib.sha256(url.encode()).hexdigest()[:16]
        path.mkdir(parents=True, exist_ok=True)
        return cls(path=path, url=url, store=store)

    @property
    def place(self) -> str:
        """Return the URL."""
        return self.url

    @property
    def artifacts(self) -> str:
        """Return the URI of where MLflow's artifacts go: how it reaches the store, it knows."""
        return f"{self.url.partition('?')[0]}/mlflow-artifacts"

    @property
    def study_url(self) -> str:
        """Raise ValueError: a database's file cannot lie there."""
        raise ValueError(f"study-storage must be given: {self.url} holds files, and no database")

    @property
    def tracking_uri(self) -> str:
        """Raise ValueError: a database's file cannot lie there."""
        raise ValueError(f"tracking-uri must be given: {self.url} holds files, and no database")

    def fetch(self, fingerprint: str, *, weights: bool = False) -> Path:
        """Return a trial's folder with what the store has of it; one that is trained in on this
        host is left alone."""
        folder = self.trial_folder(fingerprint)
        unused = CHECKPOINTS if weights else {*CHECKPOINTS, BEST}
        with contextlib.suppress(Timeout), self.hold(fingerprint, timeout_s=0):
            kept = _files_in(folder) if self._is_of_this_host(fingerprint) else set()
            self._download_changed(folder, but=unused | kept)
        return folder

    def fetch_to_train(self, fingerprint: str) -> Path:
        """Return a trial's folder with what the store has of it, and nothing else; where this host
        trained it last, with what it has left.

        Raises StoreAway having tried for a while.
        """
        folder = self.trial_folder(fingerprint)
        self._claims[fingerprint] = uuid.uuid4().hex.encode()
        try_for(STORE_PATIENCE_S)(self._claim_and_mirror, folder)
        return folder

    def share(self, fingerprint: str, *, only: str | None = None, patience_s: float = 0.0) -> None:
        """Copy to the store what has changed in a trial's folder, or one file of it.

        Raises StoreAway having tried for so long, and TakenOver where another host has fetched it
        to train.
        """
        try_for(patience_s)(self._share, fingerprint, only)

    def measure(self, fingerprint: str, names: Iterable[str]) -> int:
        """Return how many bytes such files of a trial take in the store."""
        there = self.store.list_objects(f"trials/{fingerprint}")
        return sum(there[name][0] for name in names if name in there)

    def discard(self, fingerprint: str, names: Iterable[str]) -> None:
        """Delete such files of a trial, here and in the store."""
        for name in names:
            self.store.delete(f"trials/{fingerprint}/{name}")
            (self.trial_folder(fingerprint) / name).unlink(missing_ok=True)

    def free_bytes(self) -> float:
        """Return infinity: object stores have no end."""
        return float("inf")

    @contextlib.contextmanager
    def lend_scratch(self) -> Iterator[dict[str, Any]]:
        """Make a place for what Tune keeps of a sweep, in the store; delete it at the end."""
        scratch = f"ray-{uuid.uuid4().hex[:8]}"
        try:
            yield {
                "storage_path": self.store.path_of(scratch),
                "storage_filesystem": self.store.filesystem,
            }
        finally:
            self.store.delete_all(scratch)

    def ask_to_stop(self, sweep: str) -> None:
        """Ask a sweep's trials on all hosts to checkpoint and end."""
        self.store.write(f"locks/{sweep}.stop", b"stop")

    def forget_stop(self, sweep: str) -> None:
        """Take that back."""
        self.store.delete(f"locks/{sweep}.stop")

    def is_asked_to_stop(self, sweep: str) -> bool:
        """Return whether a sweep's trials should end."""
        return self.store.has(f"locks/{sweep}.stop")

    def list_trials(self) -> list[str]:
        """Return the fingerprints of all trials that have files in the store."""
        return [name for name in self.store.list_folders("trials") if is_fingerprint(name)]

    def _claim_and_mirror(self, folder: Path) -> None:
        kept = _files_in(folder) if self._is_of_this_host(folder.name) else set()
        self.store.write(_owner(folder.name), self._claims[folder.name])
        there = self._download_changed(folder, but=kept)
        for name in _files_in(folder) - there.keys() - kept:
            (folder / name).unlink()
        self._own_claim(folder.name).write_bytes(self._claims[folder.name])

    def _is_of_this_host(self, fingerprint: str) -> bool:
        own, last = self._own_claim(fingerprint), _owner(fingerprint)
        is_known = own.is_file() and self.store.has(last)
        return is_known and own.read_bytes() == self.store.read(last)

    def _own_claim(self, fingerprint: str) -> Path:
        """Return the file with this host's claim, once it has had all that the store has."""
        return self._locks / f"{fingerprint}.owner"

    def _download_changed(self, folder: Path, *, but: Container[str] = ()) -> Stamps:
        there = self.store.list_objects(f"trials/{folder.name}")
        for name, stamp in there.items():
            if name not in but and _stamp(folder / name) != stamp:
                folder.mkdir(parents=True, exist_ok=True)
                self.store.download(f"trials/{folder.name}/{name}", folder / name)
                if time.time_ns() - stamp[1] > _TICK_NS:  # else it is fetched once more next time
                    _put_stamp(folder / name, stamp)
        return there

    def _share(self, fingerprint: str, only: str | None) -> None:
        folder, prefix = self.trial_folder(fingerprint), f"trials/{fingerprint}"
        claim = self._claims.get(fingerprint)
        if claim is not None and self.store.read(_owner(fingerprint)) != claim:
            raise TakenOver(f"trial {fingerprint} is trained on another host by now")
        there = self.store.list_objects(prefix)
        files = [file for file in folder.glob(only or "*") if file.suffix != PARTIAL]
        changed = [file for file in files if _stamp(file) != there.get(file.name)]
        # Checkpoints last, as they are written: one must not know of weights that are not there.
        for file in sorted(changed, key=lambda file: file.name == LAST):
            if file.name == LAST and LAST in there:
                self.store.copy(f"{prefix}/{LAST}", f"{prefix}/{PREVIOUS}")
            if file.name != PREVIOUS:  # which is copied within the store
                self.store.upload(file, f"{prefix}/{file.name}")
        for name, stamp in self.store.list_objects(prefix).items() if changed else ():
            if (folder / name).is_file() and name != PREVIOUS:
                _put_stamp(folder / name, stamp)


def _files_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


def _owner(fingerprint: str) -> str:
    return f"locks/{fingerprint}.owner"


def _stamp(file: Path) -> Stamp | None:
    if not file.is_file():
        return None
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _put_stamp(file: Path, stamp: Stamp) -> None:
    """Give a file the time stamp of its object: as long as both are equal, so is the content."""
    os.utime(file, ns=(stamp[1], stamp[1]))
