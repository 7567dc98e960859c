"""Modules of a package that would be imported in the place of standard or installed ones."""

import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

from cluster.package import Package

OURS = frozenset({"cluster", "search_spaces", "sweeps", "trainer"})
"""The copy that goes along is meant to come before an installed one."""


def find_shadowing(package: Package, script: Path) -> list[tuple[Path, str]]:
    """Return (file, what it hides) of each, the file relative to the package's folder.

    A job finds modules in the folder of its script first, and in the working directory next.
    """
    folders = {Path(), script.parent}
    found = ((path, _hidden_by(name)) for path, name in _modules(package, folders))
    return sorted((path, hidden) for path, hidden in found if hidden)


def _modules(package: Package, folders: set[Path]) -> set[tuple[Path, str]]:
    modules = set()
    for path in package.files:
        if path.name == "__init__.py" and path.parent.parent in folders and path.parent.name:
            modules.add((path.parent, path.parent.name))
        elif path.suffix == ".py" and path.parent in folders:
            modules.add((path, path.stem))
    return modules


def _hidden_by(name: str) -> str:
    if name in sys.stdlib_module_names:
        return "the standard library's"
    if name in OURS or name.startswith("__"):
        return ""
    installed = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    spec = PathFinder.find_spec(name, installed)
    is_module = spec is not None and spec.origin is not None  # not a folder of data
    return "an installed package's" if is_module else ""
