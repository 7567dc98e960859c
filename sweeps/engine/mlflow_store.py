"""MLflow's store or server: opened, checked, and where it is a file, made whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.tracking import MlflowClient

from sweeps.engine.database_server import check_server


@contextlib.contextmanager
def open_client(tracking_uri: str) -> Iterator[MlflowClient]:
    """Ask a store or server; whatever it raises becomes a ValueError that names it."""
    check_server("tracking-uri", tracking_uri)  # which MLflow would try for minutes
    try:
        yield MlflowClient(tracking_uri)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - every database driver raises what it likes
        raise ValueError(
            f"tracking-uri={tracking_uri}; must be an MLflow store or server: "
            f"{_reason_of(error, tracking_uri)}"
        ) from error


def _reason_of(error: Exception, tracking_uri: str) -> str:
    """Return what was wrong in one line; MLflow takes a newer database for an older one."""
    reason = str(error).strip().split("\n", 1)[0]
    if "database schema" not in reason:
        return reason
    return (
        f"{reason.partition(').')[0]}) by MLflow {mlflow.__version__}; an older one is upgraded "
        f"by `mlflow db upgrade {tracking_uri}` after a backup, a newer one needs a newer MLflow"
    )


def make_database(path: Path) -> None:
    """Make MLflow's own database, or bring it to this version's schema, whole or not at all.

    MLflow does so step by step: whoever is killed on the way, or comes second, would leave or find
    a database that no MLflow opens any more.
    """
    with FileLock(path.with_name(f".{path.name}.lock")):
        made = path if path.is_file() else path.with_name(f".{path.name}.new")
        if made != path:
            made.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        made.replace(path)


def check_store(tracking_uri: str) -> None:
    """Raise ValueError when a store cannot be opened. A server may be down, and come back."""
    with open_client(tracking_uri) as client:
        if not tracking_uri.startswith(("http://", "https://")):
            client.search_experiments(max_results=1)
