"""A real Ray head: what its jobs show and return, who may use it, and that nothing of it stays."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster import processes
from cluster.job import submit
from cluster.local import LocalHead
from cluster.ray_cli import ClusterFailed

pytestmark = pytest.mark.slow


def run_job(head: LocalHead, folder: Path, code: str, *arguments: str) -> tuple[int, str]:
    """Return the status of a script made of code, and all that was written while it ran."""
    (folder / "script.py").write_text(code)
    seen: list[str] = []
    status = submit(head, "script.py", arguments, working_dir=folder, write=seen.append)
    return status, "".join(seen)


def test_a_job_shows_what_its_script_prints_and_nothing_else(
    local_head: LocalHead, tmp_path: Path
) -> None:
    code = "import sys; print(sys.executable); print(); print(sys.argv[1:], end='')"
    assert run_job(local_head, tmp_path, code, "--data", "a b") == (
        0,
        f"{sys.executable}\n\n['--data', 'a b']",
    )


def test_a_failing_job_returns_the_status_of_its_script(
    local_head: LocalHead, tmp_path: Path
) -> None:
    code = "import sys; print('Error: lr=-1', file=sys.stderr); sys.exit(2)"
    assert run_job(local_head, tmp_path, code) == (2, "Error: lr=-1\n")


def test_of_a_job_that_dies_in_silence_ray_tells(local_head: LocalHead, tmp_path: Path) -> None:
    status, shown = run_job(local_head, tmp_path, "import sys; sys.exit(3)")
    assert status == 3
    assert "failed with exit code 3" in shown


def test_a_job_knows_its_commit_and_an_absolute_storage_root(
    local_head: LocalHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    monkeypatch.setenv("UNSHIFT_HOME", "runs")
    code = "import os; print(os.environ['UNSHIFT_COMMIT'], os.environ['UNSHIFT_HOME'])"
    _, shown = run_job(local_head, tmp_path, code)  # script.py itself is the change
    assert shown == f"{commit}+changes {Path('runs').absolute()}\n"


def test_a_job_that_ray_refuses_says_why(local_head: LocalHead, tmp_path: Path) -> None:
    with pytest.raises(ClusterFailed, match="nowhere"):
        submit(local_head, "x.py", working_dir=tmp_path / "nowhere", write=str)


def test_without_the_token_the_head_refuses(local_head: LocalHead) -> None:
    assert local_head.request("/api/jobs/") is not None
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{local_head.dashboard_url}/api/jobs/")
    refused.value.close()
    assert refused.value.code in (401, 403)


def test_a_plain_process_connects_with_the_client_environment(local_head: LocalHead) -> None:
    code = "import ray; ray.init(logging_level='ERROR'); print(ray.cluster_resources()['CPU'])"
    variables = os.environ | local_head.client_environment
    shown = subprocess.check_output([sys.executable, "-c", code], env=variables, text=True)
    assert shown == "2.0\n"


SLEEPER = """
import pathlib, signal, sys, time

def save(*_):
    time.sleep(4)  # longer than Ray's own patience of 3 s
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit("saved")

signal.signal(signal.SIGTERM, save)
print("ready")
time.sleep(120)
"""


def name_of(process: int) -> str:
    """Return the name of a process, empty once it has ended."""
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def test_an_interrupt_stops_the_job_and_ends_its_head_alone(
    local_head: LocalHead, tmp_path: Path
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    saved = tmp_path / "checkpoint"
    command = [sys.executable, "-m", "cluster", "sleeper.py", "--resume-hint", "Again: make sweep"]
    with subprocess.Popen(
        [*command, "--", str(saved)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n", launcher.communicate()
        family = processes._members(launcher.pid)
        names = set(map(name_of, family))
        launcher.send_signal(signal.SIGINT)
        shown, notes = launcher.communicate(timeout=240)
    assert {"gcs_server", "raylet", "ray::JobSupervi"} <= names
    assert (launcher.returncode, shown, saved.read_text()) == (130, "saved\n", "saved")
    assert notes.endswith("Again: make sweep\n")
    assert not family & dict(processes._processes()).keys()
    assert local_head.request("/api/version") is not None  # the other head lives on


def test_a_head_that_cannot_start_says_why_and_leaves_nothing() -> None:
    head = LocalHead(num_cpus=-1)
    with pytest.raises(
        ClusterFailed, match=r"(?s)`ray start` ended with status 1.*must be nonnegative"
    ):
        head.__enter__()
    assert head._process is not None and not processes._members(head._process.pid)
    assert not head._folder.exists()


def test_wrong_input_is_one_line_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cluster", "nowhere.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1 and "nowhere.py" in run.stderr
