"""The stores' contract is one, whichever they are: where a test keeps what it writes.

Tests that ask for `places` run over a folder with SQLite databases in it and over PostgreSQL, an
object store and an MLflow server (tests_support/stores.py). On the servers each test has databases,
a prefix and names of its own.
"""

import itertools
import uuid

import optuna
import pytest
from mlflow.tracking import MlflowClient
from tests_support.stores import SERVERS

from sweeps.engine.places import Places
from sweeps.engine.store import open_optuna


@pytest.fixture(params=["folder", SERVERS])
def places(request, tmp_path):
    """A storage root that is new, and names of databases; `mirror` stands for an object store by a
    folder."""
    if request.param == "servers":
        request.getfixturevalue("client")
        stores, name = request.getfixturevalue("stores"), f"test_{uuid.uuid4().hex[:8]}"
        return Places(
            storage=f"s3://unshift/{name}",
            study_storage=stores.postgres.url(name),
            tracking_uri=stores.mlflow,
        )
    folder = tmp_path / "root"
    folder.mkdir()
    if request.param == "folder":
        return Places(storage=str(folder))
    return Places(
        storage=f"file://{tmp_path / 'store'}",
        study_storage=f"sqlite:///{folder / 'optuna.db'}",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
    )


@pytest.fixture
def study_url(request, places, tmp_path):
    """The studies' database, with nothing in it but tables."""
    if is_served(places):
        postgres = request.getfixturevalue("stores").postgres
        name = places.study_storage.rpartition("/")[2]
        postgres.make_database(name, like=request.getfixturevalue("study_tables_on_a_server"))
        yield places.study_url()
        postgres.drop_database(name)
    else:
        tables = request.getfixturevalue("study_tables")
        (tmp_path / "root" / "optuna.db").write_bytes(tables.read_bytes())
        yield places.study_url()


@pytest.fixture
def tracking_url(request, places, tmp_path):
    """MLflow's store, with nothing in it but tables; a server has everybody's sweeps in it."""
    if not is_served(places):
        tables = request.getfixturevalue("mlflow_tables")
        (tmp_path / "root" / "mlflow.db").write_bytes(tables.read_bytes())
    return places.tracking_url()


def is_served(places):
    """Whether stores are servers."""
    return places.storage.startswith("s3://")


@pytest.fixture
def host(places, tmp_path):
    """Return a function that opens the storage root as a host of a name sees it."""

    def open_on(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(tmp_path / "homes" / name))
            return places.root(create=True)

    return open_on


@pytest.fixture
def open_study(study_url):
    """Return a function that opens a study of a name, as a process does that has just begun."""
    opened = []

    def open_named(name="study"):
        storage = open_optuna(study_url, for_driver=True)
        opened.append(storage)
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)

    yield open_named
    for storage in opened:
        storage._backend.engine.dispose()


@pytest.fixture
def sweep_name():
    """A name that no other test has given to a sweep: MLflow's server is everybody's."""
    return f"sweep_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def trials():
    """Fingerprints without end, that no other test has."""
    return (uuid.uuid4().hex[:16] for _ in itertools.count())


@pytest.fixture(scope="session")
def study_tables(tmp_path_factory):
    """Optuna's tables in a file: they take a while to make, and are copied for each test."""
    path = tmp_path_factory.mktemp("tables") / "optuna.db"
    open_optuna(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory):
    """MLflow's tables in a file, likewise."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def study_tables_on_a_server(stores):
    """Optuna's tables in a database of PostgreSQL, likewise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", stores.env["PGPASSFILE"])
        open_optuna(stores.postgres.make_database("tables"))
    return "tables"
