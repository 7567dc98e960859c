"""A real disk that is full in a moment: a tmpfs of a megabyte or a few."""

import contextlib
import errno
import os
import shutil
import subprocess
from pathlib import Path


class SmallDisk:
    """A mounted file system, and a file in it that takes up what is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, but: int = 0) -> None:
        """Leave no block free, or so many bytes."""
        if but:
            free = shutil.disk_usage(self.folder).free
            self._ballast.write_bytes(b"\0" * (free - but))
            return
        while not self._is_full():
            with self._ballast.open("ab", buffering=0) as file:
                for size in (65_536, 4096, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"\0" * size)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def _is_full(self) -> bool:
        """Whether there is no block for a byte more; others may just have given one back."""
        probe = self.folder / "probe"
        try:
            probe.write_bytes(b"x")
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return True
        finally:
            probe.unlink(missing_ok=True)
        return False


@contextlib.contextmanager
def mounted(folder: Path, *, megabytes: int):
    """Mount a small disk over a folder. Raises OSError where this user may not."""
    options = f"size={megabytes}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", os.fspath(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.returncode, done.stderr.strip())
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)
