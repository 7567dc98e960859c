"""Secrets in the environment reach whom they are for, and nothing that anybody else can read."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support.driven_sweep import TINY_TRIALS
from tests_support.flaky_server import FlakyServer, serve_mlflow
from tests_support.secret_search import CommandLines, find_in_bytes, find_in_files

from cluster.job import submit

ROOT = Path(__file__).parents[1]
API = (
    "/api/jobs/",
    "/api/v0/actors?detail=1",
    "/api/v0/tasks?detail=1",
    "/api/v0/workers?detail=1",
    "/api/v0/runtime_envs?detail=1",
    "/api/v0/nodes?detail=1",
    "/logical/actors",
)
"""What the dashboard shows of jobs, processes and their runtime environments."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(local_head, planted_secrets, recordings, tmp_path_factory):
    """Run a sweep as a job against a server that asks for the password; keep all that it leaves."""
    folder = tmp_path_factory.mktemp("secrets")
    password = planted_secrets["MLFLOW_TRACKING_PASSWORD"]
    basic = base64.b64encode(f"somebody:{password}".encode()).decode()
    arguments = ["--data", recordings, "--storage", folder / "root", "--size", "demo"]
    arguments += ["--trials", 2, "--max-steps", 8]
    arguments += [part for setting in TINY_TRIALS for part in ("--set", setting)]
    with serve_mlflow(folder) as port, pytest.MonkeyPatch.context() as patch:
        server = FlakyServer(port, authorization=f"Basic {basic}")
        arguments += ["--tracking-uri", server.uri]
        patch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
        for name, value in planted_secrets.items():
            patch.setenv(name, value)
        printed = []
        with CommandLines() as lines:
            texts = [str(each) for each in arguments]
            script = "sweeps/lr_momentum.py"
            status = submit(local_head, script, texts, working_dir=ROOT, write=printed.append)
            patch.setenv("MLFLOW_TRACKING_PASSWORD", f"{password}-wrong")
            command = [sys.executable, "-m", "sweeps", "rerun", "best:lr_momentum"]
            command += ["--tracking-uri", server.uri, "--storage", str(folder / "root")]
            wrong = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        yield {
            "status": status,
            "printed": "".join(printed),
            "folder": folder,
            "command_lines": lines.seen,
            "wrong": wrong,
            "basic": basic,
        }
        server.close()


@pytest.fixture(scope="module")
def all_secrets(run, local_head, planted_secrets):
    """The planted ones, their form in a header, and the token of the head."""
    return {**planted_secrets, "header": run["basic"], "token": local_head._token}


def test_the_sweep_reached_the_server_by_the_password_in_its_environment(run):
    assert run["status"] == 0, run["printed"]
    assert "is a model in MLflow: models:/lr_momentum@best" in run["printed"]


def test_what_was_printed_has_no_secret(run, all_secrets):
    assert find_in_bytes(run["printed"].encode(), all_secrets) == set()
    told = [line for line in run["printed"].splitlines() if line.startswith("  unshift ")]
    assert len(told) == 3 and all("--tracking-uri http://127.0.0.1" in line for line in told)


def test_a_refusal_of_the_server_is_one_line_without_the_password(run, all_secrets):
    wrong = run["wrong"]
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert "401" in wrong.stderr
    assert find_in_bytes(wrong.stderr.encode(), all_secrets) == set()


def test_no_file_of_the_storage_root_or_the_server_has_a_secret(run, all_secrets):
    found, count = find_in_files(run["folder"], all_secrets)
    names = {path.name for path in run["folder"].rglob("*")}
    assert {"optuna.db", "server.db", "config.json", "metrics.jsonl", "outcome.json"} <= names
    assert found == {} and count > 20


def test_no_log_of_the_head_has_a_secret(run, local_head, all_secrets):
    found, count = find_in_files(local_head._folder, all_secrets, but={"token"})
    assert found == {} and count > 20
    assert len(find_in_files(local_head._folder, all_secrets)[0]) == 1  # the token's own


def test_token_logs_and_sockets_of_the_head_are_for_its_owner_alone(local_head):
    folder = local_head._folder
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert {path.name for path in sockets} >= {"plasma_store", "raylet"}


def test_the_dashboard_tells_no_secret_of_jobs_and_processes(run, local_head, all_secrets):
    answers = {path: local_head.request(path) for path in API}
    assert [path for path, answer in answers.items() if not answer] == []
    entrypoints = [job["entrypoint"] for job in answers["/api/jobs/"]]
    assert any("--tracking-uri http://127.0.0.1" in entrypoint for entrypoint in entrypoints)
    assert "PL_DISABLE_FORK" in json.dumps(answers)  # which Tune gives its actors, as it did keys
    assert find_in_bytes(json.dumps(answers).encode(), all_secrets) == set()


def test_no_command_line_of_any_process_had_a_secret(run, all_secrets):
    lines = b"\n".join(run["command_lines"])
    for expected in (b"python sweeps/lr_momentum.py", b"sweeps rerun"):
        assert expected in lines
    assert find_in_bytes(lines, all_secrets) == set()
