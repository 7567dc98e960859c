"""What a node says of itself when a sweep is about to be queued: every fault is one line."""

import http.server
import json
import threading

import pytest
from click.testing import CliRunner

from sweeps.engine import readiness
from sweeps.engine.readiness import ANSWER, main


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "ask.py"
    file.write_text("import math\n")
    return file


@pytest.fixture
def answer(script, recordings, tmp_path):
    """Ask this machine, with arguments that override those of a sweep without fault."""

    def run(*arguments, options=()):
        given = ["--data", recordings, "--storage", tmp_path / "root", *arguments]
        result = CliRunner().invoke(main, [*options, "--", str(script), *map(str, given)])
        told = json.loads(result.stdout.splitlines()[-1].removeprefix(ANSWER))
        assert not [fault for fault in told["faults"] if "\n" in fault]
        return told

    return run


@pytest.fixture
def ask(answer):
    """The same, for the faults alone."""
    return lambda *arguments, **more: answer(*arguments, **more)["faults"]


def test_a_node_without_fault_has_nothing_to_say_and_nothing_is_left(ask, tmp_path):
    assert ask() == []
    assert list((tmp_path / "root" / "locks").iterdir()) == []


def test_other_versions_are_told(ask):
    (torch, nothing) = ask(options=["--expect", "torch==9.9", "--expect", "nothing==1.0"])
    assert torch.endswith("there, and 9.9 here: build its image from this lock")
    assert nothing.startswith("nothing is missing there, and 1.0 here")


def test_a_script_that_cannot_be_imported_is_told(ask, script):
    script.write_text("import no_such_module\n")
    (fault,) = ask()
    assert fault == (
        f"{script} cannot be imported there: ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_a_script_finds_what_lies_beside_it_and_is_not_run(ask, script):
    (script.parent / "beside.py").touch()
    script.write_text("import beside\nif __name__ == '__main__':\n    raise SystemExit(3)\n")
    assert ask() == []


@pytest.fixture
def no_home(tmp_path, monkeypatch):
    """A home folder without DAC's weights."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def weights(no_home):
    """DAC's weights where the library looks for them, as far as their being there goes."""
    file = no_home / ".cache/descript/dac/weights_44khz_8kbps_0.0.1.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


MIXED = """
from search_spaces import loss_mix
from sweeps.engine.run import Sweep
SWEEP = Sweep(name="loss_mix", space_for=loss_mix.space_for)
"""


def test_terms_that_a_space_varies_are_wanted_where_they_can_be_trained(answer, script, weights):
    assert answer()["wanted"] == []
    script.write_text(MIXED)
    for more in ([], ["--size", "log"], ["--size", "demo", "--set", "steps=100"]):
        told = answer(*more)
        assert told["faults"] == [] and "dac" in told["wanted"]
    weights.unlink()
    told = answer()  # the sweep leaves it out, and says so
    assert told["faults"] == [] and "dac" not in told["wanted"]
    assert told["absent"]["dac"].startswith(
        "run `python -m dac download`, which puts DAC's weights"
    )


@pytest.mark.usefixtures("no_home")
def test_a_term_that_all_trials_have_must_be_there(ask, answer, tmp_path):
    (fault,) = ask("--set", "loss.dac=1")
    assert fault.startswith("loss.dac cannot be trained there: run `python -m dac download`")
    file = tmp_path / "dac.pth"
    named = ["--set", "loss.dac=1", "--set", f"loss.dac_weights={file}"]
    (fault,) = ask(*named)
    assert fault.startswith(f"loss.dac cannot be trained there: loss.dac_weights names {file}, and")
    file.touch()
    told = answer(*named)
    assert (told["faults"], told["wanted"]) == ([], ["dac"])
    assert ask("--set", "loss.dac=null") == []


def test_data_that_are_not_there_are_told(ask, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        (fault,) = ask("--data", path)
        assert fault.startswith(f"data={path}; must be a folder of recordings there")
    assert ask("--data", "demo") == []


def test_a_storage_root_that_cannot_be_written_is_told(ask, tmp_path):
    (tmp_path / "file").touch()
    (fault,) = ask("--storage", tmp_path / "file")
    assert fault.startswith(f"storage={tmp_path / 'file'}; must be a folder")


def test_a_storage_root_without_room_is_told(ask, mount_disk):
    disk = mount_disk(megabytes=20).folder
    (fault,) = ask("--storage", disk)
    assert fault.startswith(f"storage={disk}; must have 2 GB free, has 0.0: make room")


def test_a_storage_root_that_is_not_shared_is_told_by_others(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "TAKE_TIMEOUT_S", 0.5)
    assert ask(options=["--leave", "check-1", "--leave", "check-2"]) == []
    assert ask(options=["--take", "check-1"]) == []
    (fault,) = ask("--storage", tmp_path / "own", options=["--take", "check-2"])
    assert fault.startswith(f"storage={tmp_path / 'own'}; must be a folder that all machines share")


def test_a_node_that_is_faster_than_the_drivers_waits_for_it(ask, tmp_path):
    root = str(tmp_path / "root")
    left = threading.Timer(1.0, lambda: list(readiness._check_storage(root, ["check-1"])))
    left.start()
    assert ask(options=["--take", "check-1"]) == []
    left.join()


@pytest.mark.parametrize("option", ["study-storage", "tracking-uri"])
def test_a_database_that_does_not_answer_is_told(ask, option):
    pytest.importorskip("psycopg", reason="the extra cluster is not installed")
    url = "postgresql+psycopg://somebody@127.0.0.1:9/x"
    (fault,) = ask(f"--{option}", url)
    assert fault.startswith(f"{option}={url}; cannot be used there:") and "refused" in fault


@pytest.fixture
def server():
    """A tracking server that asks for the password of somebody."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_known = self.headers.get("Authorization") == "Basic c29tZWJvZHk6c2VjcmV0"
            is_known = is_known and "/api/2.0/mlflow/experiments/search?" in self.path
            self.send_response(200 if is_known else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{there.server_port}"
        there.shutdown()


def test_a_tracking_server_is_asked_with_the_credentials_there(ask, server, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (fault,) = ask("--tracking-uri", server)
    assert fault.startswith(f"tracking-uri={server}; answers with 401 to no credentials")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert ask("--tracking-uri", server) == []
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    (tmp_path / ".mlflow").mkdir()
    file = tmp_path / ".mlflow" / "credentials"
    file.write_text("[mlflow]\nmlflow_tracking_username = x\nmlflow_tracking_password = secret\n")
    assert ask("--tracking-uri", server) == []  # each from where it is known, as MLflow does


def test_a_tracking_server_that_is_away_is_told(ask):
    (fault,) = ask("--tracking-uri", "http://127.0.0.1:9")
    assert fault.startswith("tracking-uri=http://127.0.0.1:9; does not answer: [Errno")
