"""Files put in place whole: whoever looks sees the old content or the new, and never a part."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".tmp"
"""The suffix of what is being written."""


def replace_whole(
    path: Path, write: Callable[[BinaryIO], object], *, keep_old_as: Path | None = None
) -> None:
    """Replace a file by what `write` writes, on disk before this returns.

    Killed at any moment, there is a whole file, old or new, at `path` or, where the old one is
    kept, at its new place. Raises OSError naming `path` where it cannot be written, and leaves
    nothing half written then.
    """
    temporary = path.with_name(path.name + PARTIAL)
    try:
        temporary.unlink(missing_ok=True)  # what a kill left, or a link to somewhere else
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep_old_as is not None and path.exists():
            os.replace(path, keep_old_as)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # as where the folder is no folder
            temporary.unlink(missing_ok=True)
        reason = _system_error(error)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def _system_error(error: BaseException) -> OSError | None:
    """Return what the system said. Torch goes on to complain of a position, a RuntimeError."""
    said = error.__context__ if isinstance(error, RuntimeError) else error
    return said if isinstance(said, OSError) else None
