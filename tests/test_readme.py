"""The README's commands exist, and it keeps to its size."""

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from sweeps.__main__ import commands
from trainer.config import TrainConfig

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


def test_the_question_that_the_readme_asks_is_a_small_file_that_can_be_run(tmp_path):
    """It is run as a sweep, on real audio, in test_end_to_end.py."""
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippet.splitlines()) <= 20
    (tmp_path / "activation.py").write_text(snippet)
    done = subprocess.run(
        [sys.executable, "activation.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Does a snake within blocks beat GELU" in done.stdout, done.stderr


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
        "--concurrency --gpus-per-trial --set --dry-run"
    )
    assert [option for option in contract.split() if option not in done.stdout] == []


def test_the_sweep_that_the_docs_add_can_be_run(tmp_path):
    page = (ROOT / "docs" / "adding-a-sweep.md").read_text()
    space, script = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "batch_size.py").write_text(space)
    (tmp_path / "sweep.py").write_text(script.replace("search_spaces import", "tests_docs import"))
    (tmp_path / "tests_docs.py").write_text("import batch_size\n")
    done = subprocess.run(
        [sys.executable, "sweep.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Do larger batches and weight decay pay?" in done.stdout, done.stderr
    namespace = {}
    exec(space, namespace)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in namespace["KNOWN_POINTS"]:
        study.enqueue_trial(point)
    drawn = [TrainConfig.from_fields(namespace["suggest"](study.ask())) for _ in range(50)]
    decays = [config.optimizer.weight_decay for config in drawn]
    assert decays[:2] == [0.0, 0.1]
    assert 0.0 in decays[2:] and max(decays[2:]) > 0.1


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_every_link_in_the_docs_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [name for name in targets if not (page.parent / name).exists()] == []


def test_every_link_in_the_readme_leads_somewhere():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len(targets) >= 8
    assert [name for name in targets if not (ROOT / name).exists()] == []
