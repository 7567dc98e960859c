"""What is a password in a URL, and that no command takes one or repeats it."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.credentials import refuse_secret, refuse_secrets

ROOT = Path(__file__).parents[2]
REFUSED = r"must hold no password or token"
SECRET = "s3cr3t"

WITH_SECRET = [
    f"postgresql://user:{SECRET}@host/db",
    f"postgresql+psycopg2://user:{SECRET}@host:5432/db",
    f"postgresql://user:{SECRET}/with@odd:signs@host/db",
    f"postgresql://:{SECRET}@host/db",
    f"postgresql//user:{SECRET}@host/db",
    f"postgresql:/user:{SECRET}@host/db",
    f"postgresql://host/db?user=u&password={SECRET}",
    f"mysql://host/db?ssl_key=x&PASSWD={SECRET}",
    f"https://user:{SECRET}@host",
    f"https://{SECRET}@host/mlflow",
    f"http://host:5000?api_key={SECRET}",
    f"s3://key:{SECRET}@bucket/folder",
]
WITHOUT = [
    "sqlite:////home/a:b@c/optuna.db",
    "sqlite:///C:/Users/me@here/optuna.db",
    "file:///C:/Users/me@here/mlruns",
    "postgresql://user@host:5432/db?sslmode=require&passfile=/home/u/.pgpass",
    "http://127.0.0.1:5000",
    "https://host:5000/a/path",
    "databricks://profile",
]
NO_URL = ["C:/Users/me@here/music", "best:lr_momentum@1f3a5b7c", "/mnt/a:b@c", "optimizer.lr=1e-3"]


@pytest.mark.parametrize("url", WITH_SECRET)
def test_a_url_with_a_password_is_refused_without_being_shown(url):
    for field in ("study-storage", "storage"):
        with pytest.raises(ValueError, match=f"^{field}=REDACTED; {REFUSED}") as refused:
            refuse_secret(field, url)
        assert SECRET not in str(refused.value)


def test_a_database_without_its_scheme_is_refused_where_a_url_is_meant():
    with pytest.raises(ValueError, match=REFUSED):
        refuse_secret("study-storage", f"user:{SECRET}@host/db")


@pytest.mark.parametrize("url", WITHOUT)
def test_a_url_without_one_is_taken(url):
    refuse_secret("study-storage", url)
    refuse_secret("tracking-uri", url)


@pytest.mark.parametrize("text", NO_URL)
def test_what_is_no_url_is_taken(text):
    refuse_secrets(["--trial", text, text, f"--data={text}"])


@pytest.mark.parametrize("url", WITH_SECRET)
@pytest.mark.parametrize("form", [["--study-storage", "{}"], ["--study-storage={}"]])
def test_an_argument_is_refused_by_the_name_of_its_option(url, form):
    arguments = ["--data", "demo", *(part.format(url) for part in form)]
    with pytest.raises(ValueError, match=f"^study-storage=REDACTED; {REFUSED}"):
        refuse_secrets(arguments)


def test_a_password_within_a_longer_text_is_found():
    with pytest.raises(ValueError, match="^again-command=REDACTED"):
        refuse_secrets(["--again-command", f"make sweep DATA=x URI={WITH_SECRET[0]}"])


COMMANDS = {
    "launcher": ["-m", "cluster", "sweeps/lr_momentum.py", "--", "--study-storage", WITH_SECRET[0]],
    "sweep": ["sweeps/lr_momentum.py", "--tracking-uri", WITH_SECRET[8]],
    "sweep that is told it elsewhere": ["sweeps/lr_momentum.py", WITH_SECRET[8]],
    "leaderboard": ["-m", "sweeps", "leaderboard", "x", "--study-storage", WITH_SECRET[0]],
    "sync": ["-m", "sweeps", "sync", WITH_SECRET[8]],
    "ui": ["-m", "sweeps", "ui", f"--tracking-uri={WITH_SECRET[9]}"],
}


def run(arguments, tmp_path, **variables):
    command = [sys.executable, *arguments]
    # HOME: a storage root that a refused command must not have made.
    bare = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **variables}
    return subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_in_one_line_before_it_does_anything(arguments, tmp_path):
    done = run(arguments, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and f"=REDACTED; {REFUSED}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_storage_root_with_a_password_in_the_environment_is_refused(tmp_path):
    done = run(COMMANDS["launcher"][:3], tmp_path, UNSHIFT_HOME=WITH_SECRET[-1])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "UNSHIFT_HOME=REDACTED" in done.stderr
