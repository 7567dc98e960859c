"""Files of others run no code here: how the source reads them, and what a hostile one achieves."""

import ast
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from tests_support.trained_folder import tiny_config, write_trained

from trainer.checkpoint import BEST, LAST, PREVIOUS, load_last
from trainer.trained import read_trained

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("trainer", "sweeps", "cluster") for path in (ROOT / package).rglob("*.py")
)
HARMLESS = {"trainer/losses/old_pickle.py"}
"""Its unpickler knows four names, and nothing to call: its own tests show that."""
RUNNING_CODE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "np.load"}
RUNNING_CODE |= {"cloudpickle.load", "cloudpickle.loads", "marshal.loads", "shelve.open"}
RUNNING_CODE |= {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def dangerous(path):
    """Return what in a file reads others' files in a way that may run what is in them."""
    found = []
    for name, call in calls(path):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{name} with weights_only={keywords.get('weights_only')}")
        if name in RUNNING_CODE and keywords.get("allow_pickle", "True") == "True":
            found.append(name)
    return found


def test_no_source_reads_what_could_run_code():
    found = {path.relative_to(ROOT).as_posix(): dangerous(path) for path in SOURCES}
    assert len(found) > 90
    assert {name for name, calls in found.items() if calls} == HARMLESS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch.load(f, weights_only=True)", []),
        ("torch.load(f)", ["torch.load with weights_only=None"]),
        ("torch.load(f, weights_only=False)", ["torch.load with weights_only=False"]),
        ("import pickle\npickle.loads(b'')", ["pickle.loads"]),
    ],
)
def test_what_could_run_code_is_found(tmp_path, text, expected):
    (tmp_path / "source.py").write_text(text)
    assert dangerous(tmp_path / "source.py") == expected


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return os.mkdir, (self._path,)


def write_pickle(path, harm):
    path.write_bytes(pickle.dumps(harm))


def write_torch(path, harm):
    torch.save({"model": harm}, path)


def write_old_torch(path, harm):
    torch.save({"model": harm}, path, _use_new_zipfile_serialization=False)


HOSTILE = [write_pickle, write_torch, write_old_torch]


@pytest.mark.parametrize("write", HOSTILE)
def test_a_hostile_file_does_harm_where_it_is_trusted(tmp_path, write):
    """That the files below would work."""
    write(tmp_path / "file", Harm(tmp_path / "harm"))
    if write is write_pickle:
        pickle.loads((tmp_path / "file").read_bytes())
    else:
        torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "harm").is_dir()


@pytest.mark.parametrize("write", HOSTILE)
def test_a_hostile_checkpoint_does_nothing(tmp_path, write):
    for name in (LAST, PREVIOUS):
        write(tmp_path / name, Harm(tmp_path / "harm"))
    with pytest.raises(ValueError, match=rf"^checkpoint=.*{LAST}; .*{PREVIOUS}; must be a whole"):
        load_last(tmp_path, fingerprint="0" * 16)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("write", HOSTILE)
def test_hostile_weights_do_nothing(tmp_path, write):
    write_trained(tmp_path / "trial", tiny_config("frames"))
    write(tmp_path / "trial" / BEST, Harm(tmp_path / "harm"))
    with pytest.raises(ValueError, match=rf"^weights=.*{BEST}; must be the record's net's: "):
        read_trained(tmp_path / "trial").load(torch.device("cpu"))
    shutil.rmtree(tmp_path / "trial")
    assert not (tmp_path / "harm").exists()
