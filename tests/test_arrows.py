"""Which part may import which: sweeps -> {trainer, search_spaces, cluster}; the others, nobody."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = {"cluster", "search_spaces", "sweeps", "trainer"}
ALLOWED = {
    "cluster": set(),
    "search_spaces": set(),
    "sweeps": {"cluster", "search_spaces", "trainer"},
    "trainer": set(),
}
FORBIDDEN = {
    "cluster": {"mlflow", "optuna", "torch"},
    "search_spaces": {"mlflow", "numpy", "optuna", "ray", "torch"},
    "sweeps": set(),
    "trainer": {"mlflow", "optuna", "ray"},
}


def imported(part):
    """Yield (file, top-level module) of every import below a part, nested ones too."""
    for path in (ROOT / part).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path.name, node.module.split(".")[0]


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_imports_only_what_its_arrows_allow(part):
    others = PARTS - ALLOWED[part] - {part} | FORBIDDEN[part]
    assert [found for found in imported(part) if found[1] in others] == []


def test_every_part_was_looked_at():
    assert all(any(imported(part)) for part in PARTS)


@pytest.mark.parametrize("command", [[], ["leaderboard", "--help"], ["rerun", "--help"]])
def test_unshift_imports_neither_ray_nor_torch_until_a_command_needs_them(command):
    code = (
        "import sys; from sweeps.__main__ import commands\n"
        f"commands({[*command] or ['--help']!r}, standalone_mode=False)\n"
        "print(sorted({'ray', 'torch', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_settings_come_from_the_environment_only_where_they_may():
    users = {
        path.relative_to(ROOT).as_posix()
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }
    assert {name for name in users if not name.startswith("cluster/")} == set()
