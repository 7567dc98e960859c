"""A sweep on a cluster elsewhere: submitted, left, followed again, stopped, gone on with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support.driven_sweep import TINY_TRIALS
from tests_support.waiting import wait_until

from cluster.job import queue
from cluster.package import pack
from cluster.remote import watch
from sweeps.engine.store import find_study, open_optuna
from sweeps.engine.study_records import read_records
from trainer.checkpoint import find_usable
from trainer.journal import read_journal

ROOT = Path(__file__).parents[3]
SCRIPT = "sweeps/lr_momentum.py"
pytestmark = pytest.mark.slow


class Client:
    """The command line of somebody who has the cluster's address and token, and nothing else."""

    def __init__(self, head):
        token = {k: v for k, v in head.client_environment.items() if k != "RAY_ADDRESS"}
        self.environment = {
            **os.environ,
            **token,
            "RAY_API_SERVER_ADDRESS": head.dashboard_url,
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments):
        with self.start(*arguments) as process:
            shown, notes = process.communicate(timeout=240)
        return process.returncode, shown, notes

    def run_until(self, text, *arguments):
        """Press Ctrl-C as soon as a text is shown; return status, that line and notes."""
        with self.start(*arguments) as process:
            line = next(line for line in process.stdout if text in line)
            process.send_signal(signal.SIGINT)
            _, notes = process.communicate(timeout=240)
        return process.returncode, line, notes


@pytest.fixture(scope="module")
def client(local_head):
    return Client(local_head)


@pytest.fixture
def arguments(recordings, tmp_path):
    """A sweep of one trial that is far from its end whenever this test looks at it."""
    given = ["--data", recordings, "--storage", tmp_path / "root", "--size", "demo"]
    given += ["--trials", 1, "--max-steps", 100_000, "--concurrency", 1]
    return given + [part for setting in TINY_TRIALS for part in ("--set", setting)]


def states(head):
    """Return the state of each job that is no question of ours."""
    jobs = {j["submission_id"]: j["status"] for j in head.dashboard.ask("/api/jobs/")}
    return {name: jobs[name] for name in jobs if name and "lr_momentum-" in name}


def test_a_sweep_is_left_followed_stopped_and_gone_on_with(client, local_head, arguments, tmp_path):
    known = states(local_head)
    status, _, notes = client.run_until("validation", "submit", SCRIPT, "--", *arguments)
    (job,) = states(local_head).keys() - known
    assert status == 130 and f"queued: {job}" in notes
    assert f"{job} goes on; unshift attach {job} follows it again, unshift stop {job}" in notes
    assert states(local_head)[job] == "RUNNING"

    status, line, _ = client.run_until("momentum=", "attach")  # the only one
    assert (status, line.split()[0]) == (130, "1")

    status, _, notes = client.run("stop", job)
    assert status == 0 and f"{job} is asked: trials write their checkpoints and end" in notes
    assert states(local_head)[job] == "SUCCEEDED"
    (folder,) = (tmp_path / "root" / "trials").iterdir()
    before = read_journal(folder)
    assert (folder / "last.pt").is_file() and len(before) >= 1

    status, shown, _ = client.run("attach", job)  # of an ended one: all of it
    assert status == 0 and "stopped: trials that had not finished go on" in shown
    assert "unshift submit sweeps/lr_momentum.py -- --data" in shown

    status, _, notes = client.run("submit", "--detach", SCRIPT, "--", *arguments)
    again = notes.split("queued: ")[1].strip()
    assert status == 0
    wait_until(lambda: len(read_journal(folder)) > len(before), seconds=240)
    assert client.run("stop", "--now", again)[0] == 0  # as `ray job stop` does
    assert states(local_head)[again] == "STOPPED"
    rows = read_journal(folder)
    assert rows[: len(before)] == before  # not from its first step
    _, kept = find_usable(folder, fingerprint=folder.name)
    assert kept == rows
    study = open_optuna(f"sqlite:///{tmp_path / 'root' / 'optuna.db'}")
    (record,) = read_records(find_study(study, "lr_momentum"))
    assert (record.outcome, record.step) == ("interrupted", rows[-1]["step"])
    assert [each.name for each in (tmp_path / "root" / "trials").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("options", "more", "line"),
    [
        ([], ["--gpus-per-trial", "2"], "--gpus-per-trial 2 needs 2 GPU on a machine, and 0 is"),
        ([], ["--size", "log"], "--size log needs 1 GPU on a machine, and 0 is the most there"),
        ([], ["--data", "/nowhere"], "data=/nowhere; must be a folder of recordings there"),
        (
            [],
            ["--set", "loss.dac=1", "--set", "loss.dac_weights=/nowhere"],
            "loss.dac cannot be trained there: loss.dac_weights names /nowhere, and there is no",
        ),
        ([], ["--trails", "2"], "No such option '--trails'"),
        (["--address", "http://127.0.0.1:9"], [], "does not answer: [Errno 111]"),
        (
            ["--address", "127.0.0.1:6379"],
            [],
            "must be a dashboard's, such as http://127.0.0.1:8265",
        ),
    ],
)
def test_what_would_go_wrong_is_one_line_and_nothing_is_queued(
    client, local_head, arguments, options, more, line
):
    known = states(local_head)
    status, shown, notes = client.run("submit", *options, SCRIPT, "--", *arguments, *more)
    errors = [each for each in notes.splitlines() if each.startswith("Error: ")]
    assert (status, shown, len(errors)) == (2, "", 1)
    assert line in errors[0] and notes.endswith(f"{errors[0]}\n")
    assert states(local_head) == known


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_MODE": ""}, "asks for a token: set RAY_AUTH_MODE"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "refuses this token: RAY_AUTH_TOKEN_PATH must be its own's"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "RAY_AUTH_TOKEN_PATH=/nowhere; must be a token's"),
    ],
)
def test_without_the_clusters_token_nothing_is_known_or_stopped(client, variables, line):
    stranger = object.__new__(Client)
    stranger.environment = client.environment | variables
    status, shown, notes = stranger.run("stop", "lr_momentum-00000000")
    assert (status, shown, notes.count("\n")) == (2, "", 1)
    assert line in notes


SLOW_TO_STOP = """
import pathlib, signal, sys, time
import ray

signals = []
ray.init(logging_level="ERROR")
signal.signal(signal.SIGTERM, lambda *_: signals.append(True))
print("ready", flush=True)
while not (signals and pathlib.Path(sys.argv[1]).exists()):
    time.sleep(0.1)
print(len(signals), "signal", flush=True)
"""


def test_who_stops_waiting_and_stops_again_sends_no_second_signal(client, local_head, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_TO_STOP)
    job, said, may_end = "slow-0123abcd", [], tmp_path / "may end"
    command = ["python", "slow.py", str(may_end)]
    queue(local_head.dashboard, job, command, package=pack(tmp_path))
    assert client.run_until("ready", "attach", job)[0] == 130
    with client.start("stop", job) as first:
        assert "is asked" in first.stderr.readline()
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=240)
    assert first.returncode == 130
    with client.start("stop", job) as second:
        assert second.stderr.readline() == f"{job} was asked before\n"
        may_end.touch()
        _, notes = second.communicate(timeout=240)
    assert (second.returncode, notes) == (0, f"{job} has ended: succeeded\n")
    watch(local_head.dashboard, job, write=said.append)
    assert "".join(said).endswith("1 signal\n")


def test_a_job_that_is_not_there_or_has_ended_is_one_line(client):
    for command in ("attach", "stop"):
        status, _, notes = client.run(command, "lr_momentum-00000000")
        assert status == 2 and notes.count("\n") == 1
        assert "Job lr_momentum-00000000 does not exist" in notes
    status, _, notes = client.run("stop")
    assert status == 2 and "JOB must be given, since none runs" in notes
