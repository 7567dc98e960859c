"""`unshift rerun`, as typed; what it finds is tested in engine_tests and end to end."""

import json

import pytest

from trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trial(tmp_path, tiny_config, data):
    """The fingerprint of a trial of two steps in the storage root."""
    config = tiny_config(steps=2, report_every=1)
    fingerprint = config.fingerprint(data.fingerprint)
    folder = tmp_path / "home" / "trials" / fingerprint
    train(config, report=lambda row: None, folder=folder)
    return fingerprint


def test_a_full_run_is_kept_for_restore_under_a_name_of_its_own(run, trial, tmp_path):
    status, out, err = run("rerun", trial, "--full", "--steps", 8, "--json")
    assert (status, "Traceback" in err) == (0, False)
    told = json.loads(out)
    assert (told["trial"], told["outcome"], told["step"]) == (trial, "finished", 8)
    folder = tmp_path / "home" / "trials" / told["fingerprint"]
    assert told["fingerprint"] != trial
    assert (folder / "best.safetensors").is_file()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert told["value"] == min(row["stft"] for row in rows)


def test_it_says_what_to_type_next_and_again_trains_nothing(run, trial):
    first = run("rerun", trial, "--full", "--steps", 8)
    fingerprint = first[1].split()[0]
    assert f"unshift restore --trial {fingerprint} IN OUT" in first[1]
    assert "finished at step 8: best validation" in first[1]
    again = run("rerun", trial, "--full", "--steps", 8)
    assert (again[0], again[1]) == (0, first[1])


def test_a_storage_that_was_typed_is_typed_on(run, trial, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.delenv("UNSHIFT_HOME")
    _, out, _ = run("rerun", trial, "--full", "--steps", 2, "--storage", home)
    assert f"--storage {home} IN OUT" in out


def test_a_trial_comes_out_the_same(run, trial):
    status, out, _ = run("rerun", trial)
    assert (status, "same: 2 reports up to step 2" in out) == (0, True)


def test_a_trial_of_revision_1_is_compared_within_a_tolerance_and_this_is_said(
    run, trial, tmp_path
):
    path = tmp_path / "home" / "trials" / trial / "config.json"
    record = json.loads(path.read_text())
    record["trainer_revision"] = 1
    assert record["config"].pop("model.family") == "frames"
    record["config"]["model.family"] = "spectrogram"  # the same net's name then
    path.write_text(json.dumps(record))
    status, out, err = run("rerun", trial, "--json")
    told = json.loads(out)
    assert (status, told["trial"], told["same"], told["rule"]) == (0, trial, True, "tolerance")
    assert told["rule_reason"] in err
    assert told["rule_reason"].startswith("trainer revision was 1, is ")


def test_an_altered_loss_is_named_and_the_exit_status_is_3(run, trial, tmp_path):
    journal = tmp_path / "home" / "trials" / trial / "metrics.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    rows[1]["train_loss"] *= 1.001
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, _ = run("rerun", trial, "--json")
    found = json.loads(out)["first_difference"]
    assert (status, found["step"], found["field"]) == (3, 2, "train_loss")
