"""What a job gets a copy of: the files of a folder that Ray's rules let through, and their size.

The rules are those of Ray's own packaging (ray/_private/runtime_env/packaging.py of 2.60), which is
not imported: that takes a second, of the three that all checks have.
"""

import importlib.util
import os
import sys
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from cluster.ray_cli import ClusterFailed

LIMIT_BYTES = 100 * 2**20
"""Ray's own is 512 MiB, of the head's memory."""
NAMED = 3
"""So many of the largest are named."""

DEFAULT_EXCLUDES = ".git,.venv,venv,__pycache__"
"""Ray's."""
RECORDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
"""What a recording's name ends with, in either case."""
NEVER_SENT = (
    ".git",
    *("*." + "".join(f"[{c}{c.upper()}]" for c in ending[1:]) for ending in RECORDINGS),
)
"""Patterns of what stays here, whatever Ray's settings are: history, and recordings."""

_Rule = Callable[[Path], bool]


@dataclass(frozen=True, kw_only=True)
class Package:
    """The files of a folder that go along, and empty folders."""

    folder: Path
    files: dict[Path, int]
    """Relative path and bytes."""

    @property
    def size_bytes(self) -> int:
        """Return the size; they are sent as they are."""
        return sum(self.files.values())

    def has(self, path: Path) -> bool:
        """Return whether a file goes along, by its absolute path."""
        return path.is_relative_to(self.folder) and path.relative_to(self.folder) in self.files

    def of_code(self) -> "Package":
        """Return the Python files of it alone."""
        code = {path: size for path, size in self.files.items() if path.suffix == ".py"}
        return Package(folder=self.folder, files=code)

    def name_largest(self) -> str:
        """Return the largest entries of the folder, and the largest file of each."""
        sizes: Counter[str] = Counter()
        for path, size in self.files.items():
            sizes[path.parts[0]] += size
        return ", ".join(self._name(entry, size) for entry, size in sizes.most_common(NAMED))

    def write_to(self, file: IO[bytes]) -> None:
        """Write a zip of them."""
        with zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
            for path in self.files:
                archive.write(self.folder / path, path)

    def _name(self, entry: str, size: int) -> str:
        if not (self.folder / entry).is_dir():
            return f"{entry} {mebibytes(size)}"
        inside = {path: n for path, n in self.files.items() if path.parts[0] == entry}
        largest = max(inside, key=lambda path: inside[path])
        return f"{entry}/ {mebibytes(size)} (in it {largest} {mebibytes(inside[largest])})"


def pack(folder: Path) -> Package:
    """Look at what a job would get of a folder. Raises ClusterFailed where there is none."""
    folder = folder.absolute()
    if not folder.is_dir():
        raise ClusterFailed(f"working directory {folder}; must be a folder that exists")
    defaults = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", DEFAULT_EXCLUDES)
    patterns = [part.strip() for part in defaults.split(",") if part.strip()]
    found = _travel(folder, [_rule(folder, [*patterns, *NEVER_SENT])])
    sizes = ((path, path.stat().st_size if path.is_file() else 0) for path in found)
    files = {path.relative_to(folder): size for path, size in sizes if path != folder}
    return Package(folder=folder, files=files)


def upload_name() -> str:
    """Return a new name for an upload: Ray deletes one as soon as its last job has ended, which
    must not be another's."""
    return f"_ray_pkg_{uuid.uuid4().hex}.zip"


def mebibytes(size: int) -> str:
    """Return a size as text."""
    return f"{size / 2**20:.1f} MiB"


def _travel(path: Path, rules: list[_Rule]) -> Iterator[Path]:
    """Yield files and empty folders in the order in which Ray packs them.

    Rules of a folder hold for itself and all below it; there is no rule by which one could let
    through what another keeps back.
    """
    rules = [*rules, *_rules_in(path)]
    if any(rule(path) for rule in rules):
        return
    if not path.is_dir():
        if path.is_file():
            yield path
        return
    inside = list(path.iterdir())
    if not inside:
        yield path
    for each in inside:
        yield from _travel(each, rules)


def _rules_in(folder: Path) -> list[_Rule]:
    names = [".gitignore", ".rayignore"]
    if os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") == "1":
        names.remove(".gitignore")
    return [_rule(folder, _lines(folder / name)) for name in names if (folder / name).is_file()]


def _lines(file: Path) -> list[str]:
    with file.open() as lines:
        return lines.readlines()


def _rule(folder: Path, patterns: list[str]) -> _Rule:
    spec = _pathspec().PathSpec.from_lines("gitwildmatch", patterns)
    return lambda path: bool(spec.match_file(str(path.relative_to(folder))))


def _pathspec() -> Any:
    """Return the package that Ray brings along for ignore rules, without Ray around it."""
    name = "cluster._rays_pathspec"
    if name not in sys.modules:
        sys.modules[name] = _load_pathspec(name)
    return sys.modules[name]


def _load_pathspec(name: str) -> ModuleType:
    ray = importlib.util.find_spec("ray")  # which finds it and does not import it
    if ray is None or not ray.submodule_search_locations:
        raise ClusterFailed(f"no Ray beside {sys.executable}: install unshift[sweep]")
    folder = Path(ray.submodule_search_locations[0]) / "_private" / "thirdparty" / "pathspec"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for its own relative imports
    spec.loader.exec_module(module)
    return module
