"""Every sweep script: named like its sweep, asking a question, short, and answering --help."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import search_spaces
from search_spaces.space import LOG, Shared
from trainer.config import TrainConfig
from trainer.sizes import SIZES

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "sweeps").glob("*.py") if not path.stem.startswith("__"))
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def sweep_of(script):
    return importlib.import_module(f"sweeps.{script.stem}").SWEEP


def test_every_space_has_its_sweep():
    folder = Path(search_spaces.__file__).parent
    spaces = {path.stem for path in folder.glob("*.py") if "\ndef suggest(" in path.read_text()}
    assert {script.stem for script in SCRIPTS} == spaces


@each_script
def test_a_script_is_short_and_its_docstring_is_one_question(script):
    text = script.read_text()
    assert len(text.splitlines()) <= 25
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring.endswith("?")
    assert docstring.count("\n") == 0


@each_script
def test_a_sweep_is_named_by_its_script(script):
    assert sweep_of(script).name == script.stem


@each_script
@pytest.mark.parametrize("size", SIZES)
def test_a_sweep_varies_what_its_space_does(script, size):
    space = importlib.import_module(f"search_spaces.{script.stem}")
    fields = TrainConfig.from_fields(SIZES[size]).to_fields()
    found = sweep_of(script).search_space(Shared(size=size, fields=fields))
    assert found.known_points
    if size == LOG.size:
        assert tuple(found.known_points) == tuple(space.KNOWN_POINTS)


@each_script
def test_a_script_answers_help_with_its_question(script):
    done = subprocess.run(
        [sys.executable, f"sweeps/{script.name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    question = ast.get_docstring(ast.parse(script.read_text()))
    assert question in " ".join(done.stdout.split())
