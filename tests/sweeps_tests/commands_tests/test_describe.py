"""`unshift describe`, as typed."""

import functools
import json
import re
import shutil

import pytest
from tests_support.trained_folder import tiny_config, write_trained

from trainer.config import TrainConfig
from trainer.sizes import SIZES, fields_of_size

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {
    "model.channels": [16],
    "model.blocks": [1],
    "data.clip_samples": 4096,
    "data.batch_size": 2,
    "damage.shifts": [1],
    "validation.clips": 1,
    "validation.clip_samples": 8192,
    "validation.shifts": [1],
    "device": "cpu",
}


@pytest.fixture
def describe(run):
    """Return a function from arguments to (exit status, standard output, standard error)."""
    return functools.partial(run, "describe")


@pytest.fixture
def small(recordings):
    """Arguments for a net that is described at once."""
    settings = [f"--set={name}={json.dumps(value)}" for name, value in TINY.items()]
    return ["--size", "demo", "--data", recordings, *settings]


def test_json_holds_what_the_contract_says(describe, small):
    status, out, _ = describe(*small, "--set", "optimizer.lr=1e-3", "--json")
    told = json.loads(out)
    assert status == 0
    assert told["config"]["optimizer.lr"] == 1e-3
    assert told["config"]["optimizer.adamw_lr"] == 1e-4  # resolved
    block = 16 * (7 + 1) + 2 * 16 + 64 * (16 + 1) + 16 * (64 + 1)
    assert told["parameters"] == 16 * (513 + 1) + 2 * 16 + block + 1026 * (16 + 1)
    assert told["peak_memory_bytes"] == sum(told["memory_by_part"].values())
    assert len(told["fingerprint"]) == 16
    assert told["seconds_per_step"] is None


def test_the_fingerprint_is_that_of_a_trial_on_these_recordings(describe, small, data):
    _, out, _ = describe(*small, "--json")
    config = TrainConfig.from_fields(dict(SIZES["demo"]) | TINY)
    assert json.loads(out)["fingerprint"] == config.fingerprint(data.fingerprint)


def test_the_page_tells_numbers_parts_and_configuration(describe, small):
    status, out, err = describe(*small)
    assert (status, err) == (0, "")
    for line in ("fingerprint", "receptive field", "peak memory", "largest layer     body.2"):
        assert any(shown.startswith(line) for shown in out.splitlines()), line
    assert "not measured: --time does" in out
    assert re.search(r"^model.channels +\[16\]$", out, flags=re.MULTILINE)
    assert "head                       17,442" in out


def test_time_measures(describe, small):
    _, out, _ = describe(*small, "--time", "--json")
    told = json.loads(out)
    assert told["seconds_per_step"] > 0
    assert told["measured_peak_memory_bytes"] > 400e6  # torch alone


@pytest.mark.parametrize("family", ["waveform", "spectrogram"])
def test_another_family_has_its_own_shape_at_the_demos_size(describe, small, family):
    settings = [part for part in small if not str(part).startswith("--set=model.")]
    status, out, _ = describe(*settings, f"--set=model.family={family}", "--json")
    config = TrainConfig.from_fields(fields_of_size("demo", {"model.family": family}))
    assert status == 0
    told = {name: value for name, value in json.loads(out)["config"].items() if "model." in name}
    assert told == {name: v for name, v in config.to_fields().items() if "model." in name}


def test_without_a_size_it_says_which_it_took(describe, small):
    _, out, err = describe(*small[2:], "--json")
    assert err.startswith("size ")
    json.loads(out)


def test_a_recorded_trial_can_be_described_and_changed(describe, recordings, data, tmp_path):
    shape = {name.replace(".", "__"): value for name, value in TINY.items() if "model" not in name}
    config = tiny_config("waveform", **shape)
    fingerprint = config.fingerprint(data.fingerprint)
    folder = tmp_path / "home" / "trials" / fingerprint
    write_trained(folder, config, data_fingerprint=data.fingerprint)
    arguments = ["--trial", fingerprint, "--data", recordings, "--json"]
    assert json.loads(describe(*arguments)[1])["fingerprint"] == fingerprint
    told = json.loads(describe(*arguments, "--set", "data.batch_size=4")[1])
    assert told["config"]["data.batch_size"] == 4
    assert told["fingerprint"] != fingerprint
    others = shutil.copytree(recordings, tmp_path / "others")
    (others / "0.wav").unlink()
    status, _, err = describe("--trial", fingerprint, "--data", others)
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"must be data {data.fingerprint}" in err


WRONG = {
    "unknown field": (["--set", "model.wings=2"], "field=model.wings; must be one of"),
    "not allowed": (["--set", "optimizer.lr=-1"], "optimizer.lr=-1.0; must be > 0"),
    "no value": (["--set", "steps"], "--set steps; must be FIELD=JSON"),
    "no size": (["--size", "huge"], "'huge' is not one of"),
    "no folder": (["--data", "/nowhere"], "data.path=/nowhere; must be an existing folder"),
    "no device": (["--set", "device=cuda:99"], "device=cuda:99; must be one of auto, cpu"),
    "no trial": (["--trial", "f" * 16], "must be a trial's config.json, and there is none"),
    "no sweep": (["--trial", "best:nope"], "sweep=nope; must be one of"),
    "two starts": (["--trial", "f" * 16, "--size", "demo"], "--trial and --size"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_exit_status_2(describe, case, tmp_path):
    arguments, message = WRONG[case]
    (tmp_path / "home" / "optuna.db").touch()
    if "--trial" not in arguments and "--size" not in arguments:
        arguments = ["--size", "demo", *arguments]
    status, out, err = describe(*arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line


def test_a_loss_whose_net_is_not_here_is_described_all_the_same(describe, small, tmp_path):
    settings = ["--set=loss.dac=1", f"--set=loss.dac_weights={tmp_path}/none.pth"]
    status, out, _ = describe(*small, *settings)
    assert status == 0
    assert f"loss.dac cannot be trained here: loss.dac_weights names {tmp_path}/none.pth" in out
    _, out, _ = describe(*small, *settings, "--json")
    told = json.loads(out)
    assert told["absent_terms"].keys() == {"dac"}
    assert told["loss"]["dac"]["multiply_adds_per_second"] > 1e9
    assert told["loss"]["dac"]["parameters"] > 0 == told["loss"]["stft"]["parameters"]
