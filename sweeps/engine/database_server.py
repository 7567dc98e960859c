"""Databases that are on a server, and whether it answers."""

import contextlib
from collections.abc import Iterator

import sqlalchemy
from filelock import Timeout
from sqlalchemy.pool import NullPool


def is_on_server(url: str) -> bool:
    """Whether a database is on a server; others are files."""
    return url.startswith("postgresql")


def check_server(field: str, url: str) -> None:
    """Raise ValueError naming the field when a database is on a server and cannot be used."""
    if is_on_server(url):
        with refuse_silent(field, url), make_engine(url).connect():
            pass


def make_engine(url: str) -> sqlalchemy.Engine:
    """Return what connects to a database anew each time, without transactions."""
    return sqlalchemy.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


@contextlib.contextmanager
def refuse_silent(field: str, url: str) -> Iterator[None]:
    """Raise ValueError naming the field for what keeps a database from being used; filelock.Timeout
    passes."""
    try:
        yield
    except Timeout:
        raise
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's drivers raise what they like
        reason = str(error).strip().split("\n", 1)[0]
        raise ValueError(f"{field}={url}; must be a database that answers: {reason}") from error
