import json

import click
import pytest
from click.testing import CliRunner
from optuna.storages import RDBStorage
from tests_support.fake_sweep import open_sweep, settle
from tests_support.refusals import assert_refused

from sweeps.__main__ import commands
from sweeps.engine.store import open_study


@pytest.fixture
def root(tmp_path):
    """A storage root with one ended sweep."""
    storage = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = open_study(storage, "lr_momentum", "0" * 8, lambda: {"do_nothing": {"stft": 1.5}})
    sweep = open_sweep(study)
    settle(sweep, sweep.next(), "finished", curve={10: 1.2})
    settle(sweep, sweep.next(), "diverged")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments])


def test_json_is_alone_on_standard_output(root):
    result = run("leaderboard", "lr_momentum", "--storage", root, "--json")
    board = json.loads(result.stdout)
    assert [trial["outcome"] for trial in board["trials"]] == ["finished", "diverged"]


def test_the_storage_root_comes_from_the_environment(root):
    result = CliRunner(env={"UNSHIFT_HOME": str(root)}).invoke(
        commands, ["leaderboard", "lr_momentum"]
    )
    assert "do nothing" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["leaderboard", "nope"], "sweep=nope; must be one of the sweeps there are: lr_momentum"),
        (["rerun", "nope"], "trial=nope; must be 16 hex digits, or best:SWEEP"),
        (["rerun", "best:nope"], "sweep=nope; must be one of"),
        (["rerun", "f" * 16], "must be a trial's config.json, and there is none"),
        (["rerun", "../../../etc"], "must be 16 hex digits"),
        (["rerun", "x", "--steps", "0"], "0 is not in the range x>=1"),
        (["rerun", "a'b", "--tracking-uri", "sqlite:///mlflow.db"], "must be a database"),
        (["rerun", "f" * 16, "--tracking-uri", "foo://bar"], "tracking-uri=foo://bar; must be"),
        (["ui", "--tracking-uri", "foo://bar"], "tracking-uri=foo://bar; must be an MLflow store"),
        (["ui", "nope"], "tracking-uri=sqlite:"),
        (["leaderboard", "x", "--storage", "~nosuchuser/x"], "storage=~nosuchuser/x; must be"),
        (["leaderboard", "x", "--storage", ""], "storage=''; must be a path, not empty"),
        (["leaderboard", "x", "--study-storage", "sqlite:///no.db"], "must be a database that"),
        (["leaderboard"], "Missing argument 'SWEEP'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(root, monkeypatch, unshift, arguments, line):
    monkeypatch.setenv("UNSHIFT_HOME", str(root))
    assert_refused(unshift(*arguments), match=line)


@pytest.mark.parametrize("name", [None, *sorted(commands.commands)])
def test_every_command_has_help(name):
    result = run(*([name] if name else []), "--help")
    command = commands if name is None else commands.commands[name]
    assert result.exit_code == 0
    assert command.help.splitlines()[0][:40] in result.stdout
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.opts[0] in result.stdout
