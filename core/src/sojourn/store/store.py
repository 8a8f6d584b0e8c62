"""The door to the database: every transaction is one function, run in a thread of the store's own."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from sojourn.errors import StoreUnavailable, WrongContext
from sojourn.store import engine as engines
from sojourn.store import failures, files, installation, migrate
from sojourn.threads import DaemonPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from sqlalchemy import Connection, Engine

__all__ = ["Store"]

P = ParamSpec("P")
T = TypeVar("T")

_TRIES = 5


class Store:
    """One open database. Belongs to the process that opened it; any event loop and thread of that process may use it.

    Attributes:
        url: of the database, its password hidden.
        installation_id: names this sojourn installation; part of the label of everything that it makes.
        in_place: False when the database was copied or moved since it was created or adopted; nothing may be swept then.
    """

    url: str
    installation_id: str
    in_place: bool

    def __init__(self, location: engines.Location) -> None:
        """Use `open`."""
        self.url = location.safe_url
        self._location = location
        self._engine = engines.create_engine(location)
        self._reader = engines.read_only(self._engine)
        self._executor = DaemonPool("sojourn-store", location.threads)
        self._process = os.getpid()
        self._file: tuple[int, int] | None = None
        self._closing: Future[None] | None = None
        self._close_lock = threading.Lock()

    @classmethod
    async def open(cls, url: str | os.PathLike[str] | None = None) -> Store:
        """Open the database; an SQLite file is created and upgraded as needed.

        Args:
            url: a path, an SQLAlchemy URL, or None for ``SOJOURN_STORE``, else ``sojourn.db`` in the state directory.

        Raises:
            StoreUnavailable: locked or not reachable now.
            StoreUnwritable: read-only, no permission, no space, or not a file that is safe to use.
            StoreCorrupt: not a database, or damaged.
            SchemaMismatch: newer than this sojourn, or a PostgreSQL database that is not upgraded yet.
        """
        store = cls(engines.locate(url))
        try:
            await _finish(store._executor.submit(functools.partial(store._prepare, upgrade=False)))
        except BaseException:
            await store.close()
            raise
        return store

    @classmethod
    async def upgrade(cls, url: str | os.PathLike[str] | None = None) -> Store:
        """Open the database after bringing its schema up to date, also on PostgreSQL; the same arguments and errors."""
        store = cls(engines.locate(url))
        try:
            await _finish(store._executor.submit(functools.partial(store._prepare, upgrade=True)))
        except BaseException:
            await store.close()
            raise
        return store

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(conn, ...)`` in one writing transaction: committed when it returns, rolled back when it raises.

        When the caller is cancelled, the transaction still runs to its end, and only then CancelledError is raised.

        Args:
            fn: holds only SQL, does not commit, and may be run again from its start.
            args: for ``fn``.
            kwargs: for ``fn``.

        Raises:
            StoreError: the database did not answer; nothing was changed.
            WrongContext: the store is closed, or was opened by another process.
        """
        return await _finish(self._submit(self._engine, lambda conn: fn(conn, *args, **kwargs)))

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(conn, ...)`` in one transaction that cannot write; otherwise like `run`."""
        return await _finish(self._submit(self._reader, lambda conn: fn(conn, *args, **kwargs)))

    def run_here(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(conn, ...)`` like `run`, but in the calling thread, on a connection of its own: for the heartbeat.

        Not for a thread that runs an event loop.
        """
        self._check_usable()
        return self._transact(self._engine, lambda conn: fn(conn, *args, **kwargs))

    def own_files(self) -> frozenset[tuple[int, int]]:
        """Return device and inode of the database's files, where it is one; nobody in this process may open those."""
        path = self._location.path
        if path is None:
            return frozenset()
        found = (files.identity(path.with_name(path.name + suffix)) for suffix in ("", "-wal", "-shm", "-journal"))
        return frozenset(identity for identity in found if identity is not None)

    async def adopt(self, *, new_installation: bool) -> str:
        """Accept the database where it is now, so that sweeps are on again.

        Args:
            new_installation: give it a fresh installation id: right for a copy whose original lives on, for then what the
                original made is none of ours. False is right for a database that was moved.

        Returns:
            The installation id.
        """
        self.installation_id = await self.run(installation.adopt, self._location, new_installation=new_installation)
        self.in_place = True
        return self.installation_id

    async def close(self) -> None:
        """Finish the queued transactions and let go of the database. May be called again."""
        with self._close_lock:
            if self._closing is None:
                self._closing = self._executor.submit(self._dispose)
                self._executor.close()
        await _finish(self._closing)

    def _prepare(self, *, upgrade: bool) -> None:
        path = self._location.path
        if path is not None:
            files.prepare(path)
        step = migrate.upgrade if upgrade else migrate.prepare
        # The common case needs no write lock: another process may hold it for long.
        if self._transact(self._reader, migrate.revision) != migrate.HEAD:
            self._transact(self._engine, functools.partial(step, where=self._location.shown))
        found = self._transact(self._reader, functools.partial(installation.load, location=self._location))
        if found is None:
            found = self._transact(self._engine, functools.partial(installation.ensure, location=self._location))
        self.installation_id, self.in_place = found
        self._file = files.identity(path) if path is not None else None

    def _submit(self, engine: Engine, work: Callable[[Connection], T]) -> Future[T]:
        self._check_usable()
        try:
            return self._executor.submit(lambda: self._transact(engine, work))
        except RuntimeError:
            raise WrongContext(f"store {self._location.shown} was closed") from None

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            # The child of a fork has neither our threads nor the right to our connections.
            raise WrongContext(f"store {self._location.shown} was opened by another process; open it again here")
        if self._closing is not None:
            raise WrongContext(f"store {self._location.shown} was closed")

    def _transact(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        self._check_file()
        # A writer that waited its full time for a lock must not wait four times more.
        deadline = time.monotonic() + engines.BUSY_TIMEOUT_SECONDS
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                with engine.begin() as conn:
                    return work(conn)
            except SQLAlchemyError as error:
                if not (tries_left and failures.is_transient(error) and time.monotonic() < deadline):
                    # A refused value is raised as it is, not from the statement that quotes it.
                    cause = None if failures.refused_value(error) else error
                    raise failures.translated(error, self._location.shown) from cause
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def _check_file(self) -> None:
        # SQLite goes on writing into a file that was removed or replaced, and nobody would ever see it.
        path = self._location.path
        if path is not None and self._file is not None and files.identity(path) != self._file:
            raise StoreUnavailable(f"store {path} was removed or replaced while it was open; start again")

    def _dispose(self) -> None:
        self._engine.dispose()


async def _finish(future: Future[T]) -> T:
    """Wait for the future's end, however often we are cancelled; then give its result, or the cancellation."""
    waiter = asyncio.wrap_future(future)
    cancelled: asyncio.CancelledError | None = None
    while not waiter.done():
        try:
            # Unlike awaiting it, this leaves the future alone when we are cancelled.
            await asyncio.wait([waiter])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return waiter.result()
    # Looked at, so that asyncio does not report it as never retrieved; the cancellation comes first.
    lost: Any = waiter.exception()
    if lost is not None:
        cancelled.add_note(f"the store's transaction failed: {lost}")
    raise cancelled
