import sys

import pytest
from click.testing import CliRunner
from tests_support.refusals import assert_refused
from tests_support.trained_folder import tiny_config, write_trained

from sweeps.__main__ import commands
from trainer.record import read_record


@pytest.fixture(autouse=True)
def no_onnx(monkeypatch):
    """The extra is not installed: translating takes seconds."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)


@pytest.fixture
def trial(tmp_path):
    """A storage root's only trial."""
    config = tiny_config("waveform")
    name = config.fingerprint("0" * 16)
    write_trained(tmp_path / "trials" / name, config)
    return name


def run(*arguments):
    return CliRunner().invoke(commands, ["export", *map(str, arguments)], catch_exceptions=False)


def test_what_was_written_is_told_with_its_size(tmp_path, trial):
    out = tmp_path / "out"
    result = run("--trial", trial, "--out", out, "--storage", tmp_path)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["trial", trial, "in", str(out)]
    kilobytes = (out / "best.safetensors").stat().st_size / 1e3
    assert ["best.safetensors", f"{kilobytes:.1f}", "kB"] in lines
    assert "no model.onnx: it needs onnxscript (pip install onnx" in result.stderr
    assert read_record(out).fingerprint == trial


def test_an_export_can_be_exported_again_and_replaced_when_told_to(tmp_path, trial):
    out = tmp_path / "out"
    run("--trial", trial, "--out", out, "--storage", tmp_path)
    arguments = ["--trial", out, "--out", out, "--storage", tmp_path / "nowhere"]
    with pytest.raises(ValueError, match="must be new or empty, or replaced with --force"):
        run(*arguments)
    assert run(*arguments, "--force").exit_code == 0
    assert read_record(out).fingerprint == trial


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--trial", "nope", "--out", "x"], "trial=nope; must be 16 hex digits, best:SWEEP, or"),
        (["--trial", "f" * 16, "--out", "x"], "must be a trial's config.json, and there is none"),
        (["--trial", "f" * 16, "--out", ""], "out=''; must be a path, not empty"),
        (["--trial", "best:a'b", "--out", "x"], "sweep=a'b; must be one of the sweeps"),
        (["--trial", "f" * 16], "Missing option '--out'"),
        (["--trial", "f" * 16, "--out", "x", "--tracking-uri", "foo://bar"], "tracking-uri=foo:"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(tmp_path, monkeypatch, unshift, arguments, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSHIFT_HOME", str(tmp_path))
    (tmp_path / "optuna.db").touch()
    assert_refused(unshift("export", *arguments), match=line)
    assert not (tmp_path / "x").exists()
