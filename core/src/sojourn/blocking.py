"""The same API for synchronous hosts: every call runs in one event loop, in a thread of its own, and is waited for.

::

    from sojourn import blocking

    with blocking.open_orchestrator("runs.db") as orchestrator, orchestrator.session(workspace=".") as session:
        session.execute(["make", "test"]).check()
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from sojourn.errors import WrongContext
from sojourn.orchestrator import Orchestrator
from sojourn.session import Session

__all__ = ["BlockingOrchestrator", "BlockingSession", "open_orchestrator"]

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """An event loop in a daemon thread, and the way into it from other threads."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sojourn-portal", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work(...)`` in the loop and wait for its end. An interrupt of the caller cancels it and waits as well."""
        self._check()
        future = asyncio.run_coroutine_threadsafe(work(*args, **kwargs), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result()
            raise

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise WrongContext("this orchestrator belongs to another process (a fork?); open a new one here")
        if self._loop.is_closed():
            raise WrongContext("this orchestrator is closed; open a new one")

    async def _settle(self) -> None:
        """Wait until nothing is left but this: what was cancelled has put right what it had to."""
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=30.0)

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter an async context manager from outside of the loop."""
        value = self.call(self._enter, manager)
        try:
            yield value
        except BaseException as error:
            if not self.call(self._leave, manager, error):
                raise
        else:
            self.call(self._leave, manager, None)

    async def _enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        return await manager.__aenter__()

    async def _leave(self, manager: AbstractAsyncContextManager[Any], error: BaseException | None) -> bool:
        if error is None:
            return bool(await manager.__aexit__(None, None, None))
        return bool(await manager.__aexit__(type(error), error, error.__traceback__))

    def close(self) -> None:
        """End the loop and its thread."""
        if os.getpid() != self._process:
            return  # they are the parent's
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Twin:
    """What both twins have: the object in the loop, and the way to it."""

    def __init__(self, portal: Portal, inner: Any) -> None:
        self._portal = portal
        self._inner = inner


def _blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[_Twin, P], T]:
    def call(self: _Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method, self._inner, *args, **kwargs)

    functools.update_wrapper(call, method)
    return call


class BlockingSession(_Twin):
    """A `Session` whose methods wait. ``inner`` is the session itself, for its attributes."""

    execute = _blocking(Session.execute)
    extend = _blocking(Session.extend)

    @property
    def inner(self) -> Session:
        """The session; its attributes may be read, its methods belong to the loop."""
        session: Session = self._inner
        return session

    def fail(self, reason: str) -> None:
        """Let the lease end as ``failed``; see `Session.fail`."""
        self.inner.fail(reason)


class BlockingOrchestrator(_Twin):
    """An `Orchestrator` whose methods wait. Any thread may use it, one call at a time or several."""

    resolve_environment = _blocking(Orchestrator.resolve_environment)
    acquire_lease = _blocking(Orchestrator.acquire_lease)
    acquire_for_run = _blocking(Orchestrator.acquire_for_run)
    realize_for_run = _blocking(Orchestrator.realize_for_run)
    release_for_run = _blocking(Orchestrator.release_for_run)
    activity = _blocking(Orchestrator.activity)
    reap = _blocking(Orchestrator.reap)

    @property
    def inner(self) -> Orchestrator:
        """The orchestrator; its methods belong to the loop: ``call(orchestrator.inner.environments.list)``."""
        orchestrator: Orchestrator = self._inner
        return orchestrator

    def call(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run any coroutine function in the orchestrator's loop and wait for it."""
        return self._portal.call(work, *args, **kwargs)

    @contextmanager
    def session(self, **options: Any) -> Iterator[BlockingSession]:
        """Acquire, realize, and give back when the block is left; arguments as for `Orchestrator.session`."""
        with self._portal.entered(self.inner.session(**options)) as session:
            yield BlockingSession(self._portal, session)


@contextmanager
def open_orchestrator(store: Any = None, **options: Any) -> Iterator[BlockingOrchestrator]:
    """Open an orchestrator in a thread of its own; arguments as for `Orchestrator.open`."""
    portal = Portal()
    try:
        with portal.entered(Orchestrator.open(store, **options)) as orchestrator:
            yield BlockingOrchestrator(portal, orchestrator)
    finally:
        portal.close()
