"""Real Ray, Optuna, MLflow and SQLite on real audio files: one head, a few short sweeps of small
nets."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
import soundfile
from click.testing import CliRunner
from mlflow.tracking import MlflowClient
from tests_support.driven_sweep import TINY_TRIALS
from tests_support.listening import addresses_of
from tests_support.waiting import wait_until

from cluster.free_ports import free_ports
from cluster.job import submit
from sweeps.__main__ import commands
from sweeps.engine.store import open_optuna

ROOT = Path(__file__).parent.parent
SCRIPT = "sweeps/lr_momentum.py"
STEPS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Seven recordings of noise bursts and tones, and one file that is none."""
    folder = tmp_path_factory.mktemp("music")
    time_s = np.arange(48_000 * 2) / 48_000
    for seed in range(7):
        noise = np.random.default_rng(seed).normal(0, 0.1, (time_s.size, 2))
        tone = 0.3 * np.sin(2 * np.pi * 110 * (seed + 1) * time_s)
        soundfile.write(folder / f"{seed}.flac", noise + tone[:, None], 48_000)
    (folder / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    return folder


@pytest.fixture(scope="module")
def sweep(local_head, music, tmp_path_factory):
    """Run a sweep script on a storage root of this module's; return what it printed.

    As a job where that matters: handing one over takes seconds.
    """
    storage = tmp_path_factory.mktemp("root")
    variables = os.environ | local_head.client_environment
    fixed = ["--data", music, "--storage", storage, "--max-steps", STEPS]
    fixed += [part for setting in TINY_TRIALS for part in ("--set", setting)]

    def run(*arguments, script=SCRIPT, expect=0, as_job=False):
        texts = [str(each) for each in [*fixed, *arguments]]
        if as_job:
            said = []
            status = submit(local_head, script, texts, working_dir=ROOT, write=said.append)
            printed = "".join(said)
        else:
            done = subprocess.run(
                [sys.executable, script, *texts],
                cwd=ROOT,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            status, printed = done.returncode, done.stdout
        assert status == expect, printed
        return printed

    run.storage = storage
    return run


@pytest.fixture(scope="module")
def first_output(sweep):
    return sweep("--trials", 3, as_job=True)


def unshift(*arguments):
    command = [Path(sys.executable).with_name("unshift"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def leaderboard(sweep, name="lr_momentum"):
    arguments = ["leaderboard", name, "--storage", str(sweep.storage), "--json"]
    return json.loads(CliRunner().invoke(commands, arguments).stdout)


def children(sweep, name="lr_momentum"):
    client = MlflowClient(f"sqlite:///{sweep.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    return {run.data.tags["fingerprint"]: run for run in runs}


def test_a_sweep_shows_its_progress_its_leaderboard_and_what_to_do_next(sweep, first_output):
    lines = first_output.splitlines()
    assert any(line.split()[:3] == ["trial", "varied", "step"] for line in lines)
    assert any("do nothing" in line for line in lines)
    assert sum(line.startswith("  unshift ") for line in lines) == 3
    (warning,) = [line for line in lines if "WARNING" in line]
    assert "broken.wav" in warning


def test_study_leaderboard_and_mlflow_tell_the_same(sweep, first_output):
    trials = leaderboard(sweep)["trials"]
    runs = children(sweep)
    assert len(trials) == 3
    assert {t["fingerprint"]: t["mlflow_run_id"] for t in trials} == {
        name: run.info.run_id for name, run in runs.items()
    }
    for trial in trials:
        tags = runs[trial["fingerprint"]].data.tags
        assert (tags["outcome"], tags["rank"]) == (trial["outcome"], str(trial["rank"]))
        value = runs[trial["fingerprint"]].data.metrics["value"]
        assert value == pytest.approx(trial["value"], rel=1e-12)  # the database's own rounding


def test_optuna_knows_stopped_from_finished_and_leaves_nothing_running(sweep, first_output):
    storage = open_optuna(f"sqlite:///{sweep.storage / 'optuna.db'}")
    study = optuna.load_study(study_name="lr_momentum", storage=storage)
    told = {trial.user_attrs.get("fingerprint"): trial.state.name for trial in study.get_trials()}
    expected = {"finished": "COMPLETE", "stopped": "PRUNED"}
    for trial in leaderboard(sweep)["trials"]:
        assert told[trial["fingerprint"]] == expected[trial["outcome"]]
    assert "RUNNING" not in told.values()


def test_a_finished_trial_has_its_record_journal_and_weights(sweep, first_output):
    best = leaderboard(sweep)["trials"][0]
    folder = sweep.storage / "trials" / best["fingerprint"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert min(row["stft"] for row in rows) == best["value"]
    assert {"config.json", "best.safetensors", "last.pt"} <= {p.name for p in folder.iterdir()}


def test_the_best_trial_comes_out_the_same_without_ray(sweep, first_output):
    same = unshift("rerun", "best:lr_momentum", "--storage", sweep.storage, "--json")
    assert (same.returncode, json.loads(same.stdout)["same"]) == (0, True), same.stderr
    assert json.loads(same.stdout)["rule"] == "exact"


@pytest.mark.usefixtures("one_thread")
def test_a_record_in_mlflow_serves_as_well_as_the_folder(sweep, first_output):
    uri = f"sqlite:///{sweep.storage / 'mlflow.db'}"
    arguments = ["rerun", "best:lr_momentum", "--tracking-uri", uri, "--json", "--steps", "2"]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["reports"] == 2


def test_the_best_trial_is_a_model_in_mlflow(sweep, first_output):
    best = leaderboard(sweep)["trials"][0]
    client = MlflowClient(f"sqlite:///{sweep.storage / 'mlflow.db'}")
    version = client.get_model_version_by_alias("lr_momentum", "best")
    assert version.run_id == best["mlflow_run_id"]
    told = f"best trial {best['fingerprint']} is a model in MLflow: models:/lr_momentum@best"
    assert told in first_output.splitlines()


def test_the_same_command_again_keeps_what_is_done_and_adds_what_is_missing(sweep, first_output):
    before = {run.info.run_id for run in children(sweep).values()}
    journals = {p: p.read_bytes() for p in sweep.storage.glob("trials/*/metrics.jsonl")}
    sweep("--trials", 4)
    assert len(leaderboard(sweep)["trials"]) == 4
    after = {run.info.run_id for run in children(sweep).values()}
    assert before < after and len(after) == 4
    assert all(path.read_bytes() == content for path, content in journals.items())


def test_a_complete_sweep_is_not_run_again(sweep, first_output):
    printed = sweep("--trials", 3)
    assert "do nothing" in printed
    assert "is a model in MLflow" not in printed  # it was one already
    assert not any(line.startswith("trial ") for line in printed.splitlines())


def test_the_ui_answers_on_loopback_and_leaves_nothing_running(sweep, first_output):
    (port,) = free_ports(1)
    program = Path(sys.executable).with_name("unshift")
    command = [program, "ui", "--storage", sweep.storage, "--port", str(port)]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as ui,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(ui.kill)  # where something fails on the way
        address = ui.stdout.readline().strip()
        assert address.startswith(f"http://127.0.0.1:{port}/#/experiments/")
        wait_until(lambda: _answers(port), seconds=240)
        family = psutil.Process(ui.pid).children(recursive=True)
        listening = {address for process in family for address in addresses_of(process)}
        ui.send_signal(signal.SIGTERM)
        ui.communicate(timeout=240)
    assert len(family) >= 2
    assert listening == {("127.0.0.1", port)}
    assert not psutil.wait_procs(family, timeout=60)[1]


def test_bad_trials_end_as_what_they_are_and_the_sweep_goes_on(sweep):
    sweep("--trials", 6, script="tests/support/fragile_sweep.py")
    trials = leaderboard(sweep, "fragile")["trials"]
    outcomes = sorted(trial["outcome"] for trial in trials)
    assert outcomes.count("diverged") == 1
    assert outcomes.count("failed") == 2
    errors = {trial["error"] for trial in trials if trial["outcome"] == "failed"}
    assert any("optimizer.momentum=2.0; must be >= 0 and < 1" in error for error in errors)
    assert any("device=cuda:99; must be one of" in error for error in errors)
    (too_large,) = [trial for trial in trials if trial["outcome"] == "out_of_memory"]
    # 64 blocks of 8 * 16384**2 weights: 550 GB, four times with gradients and Muon's and AdamW's.
    assert re.fullmatch(r"would need about 2\d\d\d\.\d GB, .* GB; not begun", too_large["error"])
    assert too_large["seconds"] is None
    told = {run.data.tags.get("error") for run in children(sweep, "fragile").values()}
    assert errors <= told


def test_the_question_that_the_readme_asks_gets_an_answer(sweep, first_output):
    """The job runs the file from outside the checkout, where the project is installed."""
    readme = (ROOT / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    script = sweep.storage / "activation.py"
    script.write_text(snippet)
    sweep("--trials", 2, script=str(script), as_job=True)
    trials = leaderboard(sweep, "activation")["trials"]
    assert {trial["outcome"] for trial in trials} <= {"finished", "stopped"}
    assert all(trial["params"].keys() == {"model.activation", "optimizer.lr"} for trial in trials)


def test_a_dry_run_says_what_would_run_and_trains_nothing(sweep, first_output):
    demo = ["--set", "model.channels=[160]", "--set", "model.blocks=[4]"]
    printed = sweep("--trials", 9, "--seed", 5, "--dry-run", *demo)
    assert "9 trials, 2 at a time, each on 1 CPU" in printed
    assert "ASHA stops the worse half at 1 and 2" in printed
    assert "trials  9; expected to reach step 1: 9.0, step 2: " in printed
    found = re.search(r"time    about \d+ min: (\d+) steps of [\d.]+ to [\d.]+ s", printed)
    assert 9 + 4 <= int(found[1]) <= 9 * STEPS
    assert re.search(r"memory  .* a trial, .* for 2 at once, of ", printed)
    assert re.search(rf"disk    24 MB a trial, 2\d\d MB in all, of .* {sweep.storage}", printed)
    assert leaderboard(sweep)["study"] == "lr_momentum"


def test_a_field_is_set_for_all_trials_of_a_setting_of_its_own(sweep, first_output):
    printed = sweep("--trials", 1, "--set", "loss.mel=0", "--set", "optimizer.schedule=cosine")
    assert " --set loss.mel=0 --set optimizer.schedule=cosine --data " in printed
    board = leaderboard(sweep)
    assert board["study"] != "lr_momentum"
    (trial,) = board["trials"]
    folder = sweep.storage / "trials" / trial["fingerprint"]
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["loss.mel"], config["optimizer.schedule"]) == (0.0, "cosine")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["train_mel"] > 0 for row in rows)


def test_wrong_input_is_one_line_in_a_job_too(sweep):
    printed = sweep("--data", "/nowhere", expect=2, as_job=True)
    assert "Traceback" not in printed
    assert any("data.path=/nowhere; must be" in line for line in printed.splitlines())


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_sweep_goes_on_where_it_was(driven, trial_workers, music):
    sweep = driven("interrupted", recordings=music, trials=1, steps=400)  # caught in the middle
    driver = sweep.start()
    wait_until(lambda: list(sweep.storage.glob("trials/*/last.pt")), seconds=240)
    (worker,) = wait_until(trial_workers)
    worker.suspend()  # else it might end before it hears
    driver.send_signal(signal.SIGINT)
    wait_until(lambda: list(sweep.storage.glob("locks/*.stop")))
    worker.resume()
    driver.wait(240)
    assert "trials that had not finished go on with the same command" in sweep.printed()
    assert "model in MLflow" not in sweep.printed()
    (journal,) = sweep.storage.glob("trials/*/metrics.jsonl")
    before = journal.read_text()
    assert 0 < len(before.splitlines()) < 16
    again = sweep.run()
    assert "finished" in again
    assert "is a model in MLflow: models:/lr_momentum@best" in again
    assert "Traceback" not in again
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert journal.read_text().startswith(before)
    assert [row["step"] for row in rows] == list(range(25, 401, 25))
    rerun = ["rerun", "best:lr_momentum", "--storage", str(sweep.storage)]
    same = CliRunner().invoke(commands, rerun)
    assert same.exit_code == 0, same.output


def _answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
