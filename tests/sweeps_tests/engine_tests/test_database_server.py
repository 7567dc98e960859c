"""Whoever begins while a database's server is away is told so in one line, at once."""

import dataclasses

import pytest
from tests_support.machines import options

from sweeps.engine.database_server import check_server
from sweeps.engine.mlflow_store import open_client
from sweeps.engine.root import Root
from sweeps.engine.setting import open_inputs
from sweeps.engine.store import hold_name

AWAY = "postgresql+psycopg://somebody@127.0.0.1:9/x"
SILENT = rf"={AWAY}; must be a database that answers: .*refused$".replace("+", r"\+")


@pytest.fixture(autouse=True)
def _psycopg():
    pytest.importorskip("psycopg", reason="the extra cluster is not installed")


def test_a_sweep_is_refused_before_it_decodes_or_asks_for_machines(tmp_path):
    asked = dataclasses.replace(
        options(), storage=str(tmp_path), study_storage=AWAY, relative_to=tmp_path
    )
    with pytest.raises(ValueError, match=f"^study-storage{SILENT}"):
        open_inputs(asked)


def test_who_would_hold_a_sweep_is_refused(tmp_path):
    root = Root.open(str(tmp_path), relative_to=tmp_path, create=True)
    refused = pytest.raises(ValueError, match=f"^study-storage{SILENT}")
    with refused, hold_name(root, AWAY, "lr@01234567"):
        raise AssertionError("held by nobody")


def test_mlflow_does_not_try_for_minutes():
    with pytest.raises(ValueError, match=f"^tracking-uri{SILENT}"), open_client(AWAY):
        raise AssertionError("opened")


@pytest.mark.parametrize("url", ["postgresql+nope://host/x", "postgresql://host:port/x"])
def test_what_is_no_url_of_a_database_is_refused(url):
    with pytest.raises(ValueError, match="^study-storage=postgresql.*; must be a database that"):
        check_server("study-storage", url)


def test_a_file_is_not_asked(tmp_path):
    check_server("study-storage", f"sqlite:///{tmp_path / 'optuna.db'}")
    assert list(tmp_path.iterdir()) == []
