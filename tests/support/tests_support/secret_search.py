"""Planted secrets, and where they turn up: in files, answers and command lines of processes."""

import base64
import contextlib
import threading
import time
from pathlib import Path
from urllib.parse import quote


def spellings(secrets):
    """Return (name, bytes) of the forms in which secrets may be written, by name."""
    for name, value in secrets.items():
        yield name, value.encode()
        yield f"{name}, quoted", quote(value, safe="").encode()
        yield f"{name}, in base64", base64.b64encode(value.encode())


def find_in_bytes(content, secrets):
    """Return the names of the secrets that are in bytes."""
    return {name for name, spelling in spellings(secrets) if spelling in content}


def find_in_files(folder, secrets, *, but=()):
    """Return {path: names} of the files below a folder with a secret, and how many were read."""
    found, count = {}, 0
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in but:
            with contextlib.suppress(FileNotFoundError):  # Ray tidies up while we look
                names = find_in_bytes(path.read_bytes(), secrets)
                count += 1
                if names:
                    found[str(path)] = names
    return found, count


class CommandLines:
    """Collects, while its block runs, the command line of every process of this machine."""

    def __init__(self):
        self.seen = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._is_over.set()
        self._thread.join()

    def _watch(self):
        while not self._is_over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it has just ended
                    self.seen.add(path.read_bytes().replace(b"\0", b" "))
            time.sleep(0.02)
