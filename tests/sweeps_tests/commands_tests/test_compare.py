import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sweeps.__main__ import commands
from trainer.config import SAMPLE_RATE_HZ

CONTRACT = ["stft", "mel", "lsd_db", "si_sdr_db", "l1", "cdpam"]


def write(path, *, gain=1.0, samples=30_000, rate_hz=SAMPLE_RATE_HZ):
    path.parent.mkdir(exist_ok=True)
    signal = gain * np.random.default_rng(0).normal(0, 0.1, samples)
    soundfile.write(path, signal, rate_hz, "PCM_24")
    return path


@pytest.fixture
def folders(tmp_path):
    """Two folders of recordings a and b, the estimates half as loud and a quarter."""
    for name, gain in (("a", 0.5), ("b", 0.25)):
        write(tmp_path / "aim" / f"{name}.wav")
        write(tmp_path / "made" / f"{name}.flac", gain=gain)
    return tmp_path / "aim", tmp_path / "made"


def run(*arguments):
    result = CliRunner().invoke(commands, ["compare", *map(str, arguments), "--device", "cpu"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_json_is_alone_on_standard_output(tmp_path):
    reference, estimate = write(tmp_path / "a.wav"), write(tmp_path / "b.wav", gain=0.5)
    result = run(reference, estimate, "--json")
    found = json.loads(result.stdout)
    assert list(found) == [*CONTRACT, "lag_samples"]
    assert found["lsd_db"] == pytest.approx(6.0206, abs=1e-3)  # the gain, in dB, of 24 bits
    assert found["lag_samples"] is None


def test_the_table_says_which_way_is_better(tmp_path):
    reference, estimate = write(tmp_path / "a.wav"), write(tmp_path / "b.wav", gain=0.5)
    rows = [line.split() for line in run(reference, estimate).stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == CONTRACT
    assert [row[2] for row in rows] == ["lower", "lower", "lower", "higher", "lower", "lower"]
    assert rows[2][1].startswith("6.02")


def test_the_lag_is_told(tmp_path):
    reference, estimate = write(tmp_path / "a.wav"), tmp_path / "b.wav"
    soundfile.write(estimate, soundfile.read(reference, start=441)[0], SAMPLE_RATE_HZ, "PCM_24")
    result = run(reference, estimate, "--align", "--json")
    found = json.loads(result.stdout)
    assert (found["lag_samples"], found["stft"]) == (-441, 0.0)
    assert "the estimate is 441 samples at 44.1 kHz (10.0 ms) earlier" in result.stderr


def test_folders_give_a_row_each_and_means(folders):
    rows = [line.split() for line in run(*folders).stdout.splitlines()]
    assert rows[0] == ["name", *CONTRACT]
    assert [row[0] for row in rows[2:5]] == ["a", "b", "mean"]
    a, b, mean = (float(row[3]) for row in rows[2:5])
    assert (a, b) == pytest.approx((6.0206, 12.0412), abs=1e-2)
    assert mean == pytest.approx((a + b) / 2, rel=1e-3)  # five digits are shown


def test_folders_give_means_and_files_as_json(folders):
    found = json.loads(run(*folders, "--json").stdout)
    assert list(found) == [*CONTRACT, "files"]
    assert [list(each) for each in found["files"]] == [["name", *CONTRACT, "lag_samples"]] * 2
    assert found["l1"] == pytest.approx(np.mean([each["l1"] for each in found["files"]]))


def test_what_cannot_be_compared_is_named_and_the_others_are_compared(folders):
    aim, made = folders
    (made / "a.flac").write_text("no audio")
    write(aim / "lone.wav")
    result = run(aim, made, "--json")
    assert result.exit_code == 2
    assert [each["name"] for each in json.loads(result.stdout)["files"]] == ["b"]
    assert f"WARNING: {aim / 'lone.wav'} has no recording of its name" in result.stderr
    assert f"WARNING: estimate={made / 'a.flac'}; must be a recording" in result.stderr


def refusal(*arguments):
    result = CliRunner().invoke(commands, ["compare", *map(str, arguments)])
    assert isinstance(result.exception, ValueError)  # one line and exit status 2: test_main.py
    return str(result.exception)


def test_wrong_input_is_refused(folders, tmp_path):
    aim, made = folders
    other_rate = write(tmp_path / "c.wav", rate_hz=48_000)
    assert refusal(aim, made / "a.flac") == (
        "reference and estimate=folder and file; must be two recordings or two folders"
    )
    assert "44100 Hz, not 48000 Hz, unless they are aligned (--align)" in refusal(
        aim / "a.wav", other_rate
    )
    assert refusal(aim, made, "--device", "tpu").startswith("device=tpu; must be one of auto, cpu")
    for estimate in made.iterdir():
        estimate.write_text("no audio")
    assert refusal(aim, made) == "none of the 2 pairs could be compared"
