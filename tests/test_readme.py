"""The README's commands exist, and it keeps to its size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.__main__ import commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
]


def test_the_readme_is_short_and_begins_with_its_first_command():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert next(i for i, line in enumerate(lines, 1) if line.startswith("make sweep")) <= 25


def test_every_path_in_the_file_map_exists():
    paths = re.findall(r"^\| `([^`]+)` \|", README, flags=re.MULTILINE)
    assert len(paths) >= 7
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_a_make_command_of_the_readme_has_its_target(command):
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if "unshift " in c and "ray" not in c])
def test_an_unshift_command_of_the_readme_can_be_read(command):
    name, *arguments = command.split()[1:]
    context = commands.commands[name].make_context(name, arguments)
    assert context.params


@pytest.mark.parametrize("module", ["trainer", "cluster", "sweeps/lr_momentum.py"])
def test_everything_that_is_run_has_help(module):
    target = [module] if module.endswith(".py") else ["-m", module]
    done = subprocess.run(
        [sys.executable, *target, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage:")


def test_every_option_of_the_contract_is_taken_by_a_sweep_script():
    done = subprocess.run(
        [sys.executable, "sweeps/lr_momentum.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    contract = (
        "--data --size --trials --max-steps --storage --seed --tracking-uri --study-storage "
        "--concurrency --gpus-per-trial --dry-run"
    )
    assert [option for option in contract.split() if option not in done.stdout] == []
