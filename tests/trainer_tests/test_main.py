import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from trainer.__main__ import main
from trainer.command_line import parse_settings, run_command
from trainer.journal import read_journal
from trainer.record import read_record
from trainer.sizes import fields_of_size

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {
    "model.channels": [16],
    "model.blocks": [1],
    "data.clip_samples": 4096,
    "data.batch_size": 2,
    "validation.clips": 2,
    "validation.clip_samples": 8192,
    "steps": 4,
    "report_every": 2,
    "device": "cpu",
}


@pytest.fixture
def arguments(recordings, shared_cache):
    """Return a function from changed fields to the arguments of a run of a second."""

    def build(*, without=(), **changes):
        fields = TINY | {"data.cache": shared_cache} | changes
        fields = {name: value for name, value in fields.items() if name not in without}
        settings = [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]
        return ["--data", str(recordings), "--size", "demo", *settings]

    return build


def run(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def run_to_the_end(capsys):
    """Return a function from arguments to the exit status and what was printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            run_command(main, arguments)
        return ended.value.code, capsys.readouterr()

    return run


def test_help_names_every_option():
    shown = run("--help")
    assert shown.exit_code == 0
    for option in ("--data", "--size [log|demo]", "--set FIELD=JSON", "--out", "--resume"):
        assert option in shown.output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5", 5),
        ("[1, 8]", [1, 8]),
        ("true", True),
        ("null", None),
        ("adamw", "adamw"),
        ('"adamw"', "adamw"),
        ("/a=b", "/a=b"),
        ("", ""),
    ],
)
def test_a_setting_is_json_or_else_a_string(text, value):
    (parsed,) = parse_settings((f"some.field={text}",)).values()
    assert (parsed, type(parsed)) == (value, type(value))


def test_of_two_settings_of_a_field_the_last_holds():
    assert parse_settings(("steps=1", "seed=2", "steps=3")) == {"steps": 3, "seed": 2}


WRONG = {
    "no value": (["--set", "optimizer.lr"], "--set optimizer.lr; must be FIELD=JSON, such as"),
    "unknown field": (["--set", "optimizer.rate=1"], "field=optimizer.rate; must be one of comp"),
    "not allowed": (["--set", "optimizer.lr=-1"], "optimizer.lr=-1.0; must be > 0"),
    "not a number": (["--set", "optimizer.lr=NaN"], "optimizer.lr=nan; must be > 0"),
    "no folder": (["--data", "/nowhere"], "data.path=/nowhere; must be an existing folder"),
    "no size": (["--size", "huge"], "'huge' is not one of 'log', 'demo'"),
    "resume from nowhere": (["--resume"], "--resume needs --out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_line_and_exit_2(case, shared_cache, run_to_the_end):
    arguments, message = WRONG[case]
    setting = f"data.cache={shared_cache}"
    status, shown = run_to_the_end("--size", "demo", "--set", setting, *arguments)
    assert (status, shown.out) == (2, "")
    (line,) = shown.err.splitlines()
    assert line.startswith("Error: ")
    assert message in line


def test_a_damaged_checkpoint_is_wrong_input(arguments, tmp_path, run_to_the_end):
    (tmp_path / "last.pt").write_bytes(b"damaged")
    status, shown = run_to_the_end(*arguments(), "--out", str(tmp_path), "--resume")
    assert status == 2
    assert re.search(r"^Error: checkpoint=.*last\.pt; must be", shown.err, flags=re.MULTILINE)
    assert (tmp_path / "last.pt").read_bytes() == b"damaged"


def test_resuming_where_nothing_is_yet_starts_and_says_so(arguments, tmp_path):
    shown = run(*arguments(steps=2), "--out", str(tmp_path), "--resume")
    assert f"no checkpoint in {tmp_path} yet: training starts at step 0" in shown.stderr
    assert [row["step"] for row in read_journal(tmp_path)] == [2]


def test_a_folder_that_is_a_file_is_wrong_input(arguments, tmp_path, run_to_the_end):
    (tmp_path / "file").write_text("")
    status, shown = run_to_the_end(*arguments(), "--out", str(tmp_path / "file"))
    assert (status, "Traceback" in shown.err) == (2, False)


def test_it_trains_and_ends_with_outcome_and_scores(arguments):
    shown = run(*arguments())
    assert shown.exit_code == 0, shown.output
    assert re.fullmatch(
        r"finished at step 4 \(0\.2 s of audio each\): "
        r"best validation \d\.\d+, do nothing \d\.\d{4} \n",
        shown.stdout,
    )
    assert "do nothing: " in shown.stderr
    assert "4/4" in shown.stderr  # the bar


def test_with_out_it_goes_on_where_it_was(arguments, tmp_path):
    config_only = {"report_every": 2}
    first = run(*arguments(**config_only), "--out", str(tmp_path))
    assert first.exit_code == 0, first.output
    assert read_record(tmp_path).config.steps == 4
    rows = read_journal(tmp_path)
    assert [row["step"] for row in rows] == [2, 4]
    again = run(*arguments(**config_only), "--out", str(tmp_path), "--resume")
    assert again.stdout == first.stdout
    assert read_journal(tmp_path) == rows


@pytest.mark.parametrize("family", ["waveform", "spectrogram"])
def test_a_size_has_a_net_of_a_family_that_is_not_its_own(arguments, tmp_path, family):
    settings = arguments(without=("model.channels", "model.blocks"), steps=1)
    shown = run(*settings, "--set", f"model.family={family}", "--out", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    trained = read_record(tmp_path).config.to_fields()
    given = {name: trained[name] for name in TINY.keys() - {"model.channels", "model.blocks"}}
    assert given == {name: TINY[name] for name in given} | {"steps": 1}
    expected = fields_of_size("demo", {"model.family": family})["model.channels"]
    assert trained["model.channels"] == list(expected)


def test_a_trial_that_diverges_says_so_and_exits_with_3(arguments, run_to_the_end):
    status, shown = run_to_the_end(*arguments(**{"optimizer.lr": 1e10, "report_every": 1}))
    assert status == 3
    assert re.match(r"diverged at step 2 .* validation stft=nan at step 2$", shown.out)


def test_python_m_trainer_prints_one_line_and_the_rest_to_standard_error(arguments):
    command = [sys.executable, "-m", "trainer", *arguments(steps=1)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"finished at step 1 .*\n", done.stdout)
    assert "do nothing: " in done.stderr
    assert "Warning" not in done.stderr
