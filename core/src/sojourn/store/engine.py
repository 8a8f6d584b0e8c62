"""Engines: which database is meant, how to connect to it, and how each transaction begins."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from sojourn import paths
from sojourn.errors import StoreError
from sojourn.store import failures, schema
from sojourn.store.dialects import control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["BUSY_TIMEOUT_SECONDS", "Location", "create_engine", "locate", "read_only"]

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a writer waits for another one before the store counts as unavailable."""

_READ_ONLY = "sojourn_read_only"
_BARE_POSTGRESQL = frozenset({"postgres", "postgresql"})
_SECRET_QUERY = ("password", "passfile", "sslpassword")


@attrs.frozen(kw_only=True)
class Location:
    """Which database is meant.

    Args:
        url: with its password; never shown.
        path: of an SQLite file, absolute; None for PostgreSQL.
    """

    url: URL = attrs.field(repr=False)
    path: Path | None

    @property
    def shown(self) -> str:
        """The database for people: a path, or a URL without secrets."""
        return str(self.path) if self.path is not None else self.safe_url

    @property
    def safe_url(self) -> str:
        """The URL with its password hidden."""
        return self.url.difference_update_query(_SECRET_QUERY).render_as_string(hide_password=True)

    @property
    def threads(self) -> int:
        """How many transactions may run at a time: SQLite has one writer, so more would only wait for each other."""
        return 1 if self.path is not None else 4


def locate(url: str | os.PathLike[str] | None, environ: Mapping[str, str] | None = None) -> Location:
    """Find out which database is meant.

    Args:
        url: a path, an SQLAlchemy URL, or None for ``SOJOURN_STORE``, else ``sojourn.db`` in the state directory.
        environ: in place of the process's environment.

    Raises:
        StoreError: the URL cannot be read, or names a database that sojourn does not work with.
    """
    if url is None:
        url = (os.environ if environ is None else environ).get("SOJOURN_STORE") or paths.state_dir() / "sojourn.db"
    if isinstance(url, str) and "://" in url:
        return _from_url(url)
    return _sqlite(os.fspath(url))


def _from_url(text: str) -> Location:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password, and so may the error's.
        raise StoreError(
            "the store's URL cannot be read; write a path, sqlite:///PATH or postgresql://HOST/NAME"
        ) from None
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if not url.database or url.database == ":memory:" or url.database.startswith("file:") or url.query:
            raise StoreError(f"store {url.drivername}: name a file without options, like sqlite:///PATH")
        return _sqlite(url.database)
    if url.drivername in _BARE_POSTGRESQL:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername != "postgresql+psycopg":
        raise StoreError(f"store {url.drivername}: sojourn works with sqlite and postgresql (psycopg 3)")
    return Location(url=url, path=None)


def _sqlite(path: str) -> Location:
    absolute = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a symbolic link
    return Location(url=URL.create("sqlite", database=str(absolute)), path=absolute)


def create_engine(location: Location) -> Engine:
    """Return an engine whose transactions begin as the store needs them; connects to nothing yet.

    Raises:
        StoreError: the database's Python driver is not installed.
    """
    # Errors quote their statement's values, and those may be private.
    if location.path is None:
        return _postgresql_engine(location)
    engine = sqlalchemy.create_engine(
        location.url,
        hide_parameters=True,
        # One for the store's thread, one for a caller of `run_here`, which has a thread of its own (the heartbeat).
        pool_size=2,
        # Every transaction is ended by `Engine.begin`; the pool's own rollback would only cost time.
        pool_reset_on_return=None,
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS},
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def read_only(engine: Engine) -> Engine:
    """Return a view of the engine, with the same pool, whose transactions cannot write."""
    return engine.execution_options(**{_READ_ONLY: True, "postgresql_readonly": True})


def _postgresql_engine(location: Location) -> Engine:
    schema.use_postgresql()
    try:
        return sqlalchemy.create_engine(
            location.url, hide_parameters=True, pool_size=location.threads + 1, pool_pre_ping=True
        )
    except ImportError as error:
        raise StoreError(f"store {location.shown} needs psycopg 3; run: pip install 'psycopg[binary]'") from error


def _set_pragmas(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    _use_wal(connection)


def _use_wal(connection: Any) -> None:
    # The switch is remembered in the file. While several processes open a new file at once it answers "locked" without
    # waiting for the busy timeout.
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except connection.OperationalError as error:
            if not failures.is_transient(OperationalError("PRAGMA", {}, error)) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - jitter, not a secret


def _begin(conn: Connection) -> None:
    # The driver would emit a deferred BEGIN only before the first write; two transactions that read and then write would
    # then fail at once, whatever the busy timeout.
    wanted = bool(conn.get_execution_options().get(_READ_ONLY, False))
    info = conn.connection.info
    if info.get(_READ_ONLY, False) is not wanted:
        control(conn, f"PRAGMA query_only = {int(wanted)}")
        info[_READ_ONLY] = wanted
    control(conn, "BEGIN" if wanted else "BEGIN IMMEDIATE")
