"""A lock in a database server, for what one driver at a time may do on whichever host."""

import contextlib
import hashlib
import logging
import os
import signal
import threading
import time
from typing import Self

import sqlalchemy
from filelock import Timeout
from sqlalchemy.exc import SQLAlchemyError

from sweeps.engine.database_server import make_engine, refuse_silent

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_BETWEEN_TRIES = 0.1

logger = logging.getLogger(__name__)


class ServerLock:
    """Keeps others that hold the same name away from a PostgreSQL server's database, while its
    `with` block lasts.

    The server gives a lock to a connection, and forgets both when it is started anew: the lock is
    taken again as soon as the server is back. Where another was faster, this process is asked to
    end, by SIGTERM.
    """

    def __init__(self, url: str, name: str, *, timeout_s: float = 0.0) -> None:
        self._name, self._url = name, url
        self._timeout_s = timeout_s
        digest = hashlib.sha256(name.encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._engine = make_engine(url)
        self._is_over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="server-lock", daemon=True)

    def __enter__(self) -> Self:
        """Raise filelock.Timeout when it is held for so long, and ValueError when the server does
        not answer."""
        with refuse_silent("study-storage", self._url):
            self._connection = self._take(self._timeout_s)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._keeper.join(timeout=_SECONDS_BETWEEN_LOOKS)
        if not self._keeper.is_alive():  # else it waits for a server that is away: so is the lock
            with contextlib.suppress(SQLAlchemyError), self._connection:
                # Not by closing alone: it is some time later that the server forgets a connection.
                self._connection.scalar(
                    sqlalchemy.select(sqlalchemy.func.pg_advisory_unlock(self._key))
                )

    def _take(self, timeout_s: float) -> sqlalchemy.Connection:
        connection = self._engine.connect()
        is_mine = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_lock(self._key))
        deadline_s = time.monotonic() + timeout_s
        while not connection.scalar(is_mine):
            if time.monotonic() >= deadline_s:
                connection.close()
                raise Timeout(self._name)
            time.sleep(_SECONDS_BETWEEN_TRIES)
        return connection

    def _keep(self) -> None:
        while not self._is_over.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self._connection.scalar(sqlalchemy.select(1))
            except SQLAlchemyError:
                self._take_again()

    def _take_again(self) -> None:
        with contextlib.suppress(SQLAlchemyError):
            self._connection.invalidate()
            self._connection.close()
        try:
            self._connection = self._take(0.0)
        except SQLAlchemyError:
            return  # not back yet: looked for again in a while
        except Timeout:
            logger.error("%s: another began it while the database was away; ending", self._name)
            self._is_over.set()
            os.kill(os.getpid(), signal.SIGTERM)
