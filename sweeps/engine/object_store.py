"""Files in an object store (S3, Google Cloud Storage and the like), through pyarrow.

Credentials are the environment's, an instance's role's or a profile's: pyarrow's SDKs find them.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import fs

from sweeps.engine.root import StoreAway
from trainer.whole_file import replace_whole

Stamp = tuple[int, int]
"""Bytes, and time stamp in ns, of an object as a listing gives it: other calls round it."""
Stamps = dict[str, Stamp]

_PIECE_BYTES = 2**20


class ObjectStore:
    """A prefix in a bucket. Keys are relative to it. All raise StoreAway where it is away."""

    def __init__(self, url: str) -> None:
        """Find it. Raises ValueError naming the URL where that is of no store."""
        self._url = url
        with self._reach():
            try:
                self._files, self._base = fs.FileSystem.from_uri(url)
            except ValueError as error:  # as pyarrow's ArrowInvalid is
                reason = str(error).strip().split("\n", 1)[0]
                allowed = f"a folder, or a URL such as s3://bucket/prefix: {reason}"
                raise ValueError(f"storage={url}; must be {allowed}") from error

    @property
    def filesystem(self) -> Any:
        """Return pyarrow's file system."""
        return self._files

    def path_of(self, key: str) -> str:
        """Return a key as that file system's path."""
        return f"{self._base.rstrip('/')}/{key}"

    def upload(self, file: Path, key: str) -> None:
        """Put a file in place, whole."""
        with file.open("rb") as source, self._reach():
            with self._open_new(key) as sink:
                shutil.copyfileobj(source, sink, length=_PIECE_BYTES)

    def write(self, key: str, content: bytes) -> None:
        """Put an object in place."""
        with self._reach(), self._open_new(key) as sink:
            sink.write(content)

    def read(self, key: str) -> bytes:
        """Return an object's content."""
        with self._reach(), self._files.open_input_stream(self.path_of(key)) as source:
            return bytes(source.read())

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, whole."""
        with self._reach(), self._files.open_input_stream(self.path_of(key)) as source:
            replace_whole(file, lambda sink: shutil.copyfileobj(source, sink, length=_PIECE_BYTES))

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the store."""
        with self._reach():
            self._files.copy_file(self.path_of(key), self.path_of(to))

    def delete(self, key: str) -> None:
        """Delete an object, unless it is not there."""
        if self.has(key):
            with self._reach():
                self._files.delete_file(self.path_of(key))

    def delete_all(self, prefix: str) -> None:
        """Delete all objects below a prefix."""
        with self._reach():
            if self._files.get_file_info(self.path_of(prefix)).type == fs.FileType.Directory:
                self._files.delete_dir(self.path_of(prefix))

    def has(self, key: str) -> bool:
        """Return whether there is an object."""
        with self._reach():
            return bool(self._files.get_file_info(self.path_of(key)).type == fs.FileType.File)

    def list_objects(self, prefix: str) -> Stamps:
        """Return the stamp of each object right below a prefix, by name."""
        return {i.base_name: (i.size, i.mtime_ns) for i in self._list(prefix) if i.is_file}

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names right below a prefix that have objects below them."""
        return [i.base_name for i in self._list(prefix) if i.type == fs.FileType.Directory]

    def _open_new(self, key: str) -> Any:
        path = self.path_of(key)
        if self._files.type_name == "local":  # file://, the only one with real folders
            self._files.create_dir(path.rpartition("/")[0])
        return self._files.open_output_stream(path)

    def _list(self, prefix: str) -> list[Any]:
        with self._reach():
            selector = fs.FileSelector(self.path_of(prefix), allow_not_found=True)
            return list(self._files.get_file_info(selector))

    @contextlib.contextmanager
    def _reach(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise StoreAway(
                f"storage={self._url} must be a store that answers: {reason}"
            ) from error
