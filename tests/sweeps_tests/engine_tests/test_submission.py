"""What is found before a sweep is queued, with nothing but a folder and a command line."""

import subprocess

import pytest

from cluster.nodes import Node
from cluster.ray_cli import ClusterFailed
from sweeps.engine.submission import (
    Submission,
    check_here,
    choose_workers,
    gather_faults,
    read_pins,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ask.py").write_text("import math\n")
    return tmp_path


def submission(folder, *arguments, script="ask.py", **more):
    given = {"arguments": arguments, "gpus": 0, **more}
    return Submission(script=folder.joinpath(script).relative_to(folder), folder=folder, **given)


def faults(folder, *arguments, script="ask.py"):
    found = check_here(submission(folder, *arguments, script=script), note=str)
    assert not [fault for fault in found if "\n" in fault]
    return found


def test_a_folder_and_arguments_without_fault_are_let_through(folder):
    arguments = ["--data", "/mnt/music", "--storage", "s3://bucket/x", "--trials", "64"]
    arguments += ["--study-storage", "postgresql://u@h/d", "--tracking-uri", "http://h:5000"]
    assert faults(folder, *arguments) == []


def test_more_than_the_limit_is_refused_with_what_is_largest(folder):
    (folder / "runs").mkdir()
    with (folder / "runs" / "last.pt").open("wb") as file:
        file.truncate(101 * 2**20)
    assert faults(folder) == [
        "101.0 MiB would be uploaded, and the limit is 100.0 MiB: runs/ 101.0 MiB (in it "
        "runs/last.pt 101.0 MiB), ask.py 0.0 MiB: name what is not needed in .rayignore"
    ]
    (folder / ".rayignore").write_text("runs\n")
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("random.py", "random.py hides the standard library's module random: rename it"),
        ("click/__init__.py", "click hides an installed package's module click: rename it"),
        ("scripts/json.py", "scripts/json.py hides the standard library's module json: rename it"),
    ],
)
def test_a_module_that_hides_another_is_named(folder, file, line):
    (folder / "scripts").mkdir()
    (folder / "scripts" / "ask.py").touch()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).touch()
    assert faults(folder, script="scripts/ask.py") == [line]


def test_folders_that_are_no_packages_and_files_elsewhere_hide_nothing(folder):
    for name in ("tests/click.py", "trainer/__init__.py", "numpy/data.txt", ".venv/random.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--data", "music"], "data=music; must be absolute: a job runs in a folder of its own"),
        (["--storage", "runs"], "storage=runs; must be absolute"),
        (["--study-storage", "sqlite:///x.db"], "study-storage=sqlite:///x.db; must be absolute"),
        (
            ["--storage", "s3://b/x", "--tracking-uri", "http://h"],
            "study-storage must be given: s3://b/x holds files, no database",
        ),
    ],
)
def test_places_that_mean_nothing_to_a_job_are_refused(folder, arguments, line):
    (found,) = faults(folder, *arguments)
    assert found.startswith(line)


def test_a_script_that_stays_here_or_does_not_parse_is_refused(folder):
    (folder / "bad.py").write_text("def f(:\n")
    (found,) = faults(folder, script="bad.py")
    assert found.startswith("bad.py is no Python that runs: invalid syntax")
    (folder / ".gitignore").write_text("ask.py\n")
    assert faults(folder) == ["ask.py would stay here: .gitignore or .rayignore names it"]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ClusterFailed, match="nowhere; must be a folder that exists"):
        check_here(submission(tmp_path / "nowhere"), note=str)


def test_size_and_uncommitted_changes_are_noted(folder):
    notes = []
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    (folder / "new.py").touch()
    assert check_here(submission(folder), note=notes.append) == []
    assert notes == [
        "package: 0.0 MiB in 2 files; largest: ask.py 0.0 MiB, new.py 0.0 MiB",
        "2 uncommitted changes go along: trials are recorded as of commit+changes",
    ]


def test_the_versions_of_a_lock_are_wanted_else_those_here(folder):
    (folder / "requirements.lock").write_text("torch==9.1+cpu \\\n    --hash=x\nray[a]==9.2\n")
    pins = read_pins(folder)
    assert (pins["torch"], pins["ray"]) == ("9.1", "9.2")
    assert pins["mlflow"].split(".")[0] == "3"


def test_the_job_waits_for_gpus_where_that_is_asked(folder):
    wanted = submission(folder, "--trials", "3", gpus=8, again_command="unshift submit {trials}")
    command = ["python", "ask.py", "--trials", "3", "--again-command", "unshift submit {trials}"]
    waits = ["python", "-m", "cluster.workers", "--gpus", "8", "--"]
    assert wanted.entrypoint == [*waits, *command]


def test_nodes_with_gpus_are_asked_first_and_the_head_only_as_head():
    nodes = [Node(address="h", is_head=True, gpus=0.0)]
    nodes += [Node(address=f"w{n:02}", is_head=False, gpus=float(n == 9)) for n in range(12)]
    asked = [node.address for node in choose_workers(nodes)]
    assert asked == ["w09", *(f"w{n:02}" for n in range(7))]


def told(*faults, absent=(), wanted=()):
    return {"faults": faults, "absent": {term: f"get {term}" for term in absent}, "wanted": wanted}


def test_terms_that_the_head_would_train_must_be_trainable_on_every_node():
    answers = {
        None: told(absent=["encodec"], wanted=["cdpam", "dac"]),
        "w1": told(absent=["encodec", "dac"]),
        "w2": told(),
        "w3": told("no data", absent=["cdpam"]),
    }
    assert gather_faults(answers) == [
        "w1: loss.dac cannot be trained there: get dac",
        "w3: no data",
        "w3: loss.cdpam cannot be trained there: get cdpam",
    ]
    assert gather_faults(answers | {None: told(absent=["dac"])}) == ["w3: no data"]


def test_the_heads_faults_come_first_and_once():
    assert gather_faults({None: told("a", "b", "a")}) == ["a", "b"]
