"""The guard around every hook call: its own task or thread, a deadline, and no foreign exception beyond it."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from sojourn.errors import DriverBug, DriverError, OutcomeUnknown
from sojourn.logs import logger
from sojourn.threads import DaemonPool

__all__ = ["Guard", "HookTimedOut", "being_cancelled"]

T = TypeVar("T")
log = logger("sojourn.drivers")


class HookTimedOut(OutcomeUnknown):
    """A hook missed its deadline. ``abandoned``: it did not even end when it was cancelled, so it may still take effect."""

    def __init__(self, message: str, *, abandoned: bool) -> None:
        super().__init__(message)
        self.abandoned = abandoned


class Guard:
    """Calls hooks of one driver.

    Args:
        driver: its name, for errors.
        abandon_after_seconds: how long a cancelled hook may take to end before it is left alone and counted.
        blocked_after_seconds: a step of an ``async def`` hook longer than this is reported as blocking the event loop.
        threads: how many plain ``def`` hooks run at once.
    """

    def __init__(
        self,
        driver: str,
        *,
        abandon_after_seconds: float = 10.0,
        blocked_after_seconds: float = 1.0,
        threads: int = 8,
    ) -> None:
        self.driver = driver
        self.abandoned = 0
        self.blocked = 0
        self._abandon_after_seconds = abandon_after_seconds
        self._blocked_after_seconds = blocked_after_seconds
        self._kept: list[Any] = []
        self._threads = threads
        self._pool = self._new_pool()

    async def call(
        self, hook: str, make: Callable[[], Any], *, asynchronous: bool, timeout_seconds: float | None
    ) -> Any:
        """Call a hook and return its answer.

        Args:
            hook: its name, for errors.
            make: calls the implementation; gives a coroutine when ``asynchronous``, else the answer (in a thread).
            asynchronous: whether the implementation is an ``async def``.
            timeout_seconds: the deadline; None for none.

        Raises:
            DriverError: what the driver raised, or `DriverBug` for anything that is not a `DriverError`.
            HookTimedOut: the deadline passed.
            asyncio.CancelledError: our own caller was cancelled; the hook was cancelled and awaited first.
        """
        what = f"driver {self.driver}: {hook}"
        given_up = asyncio.Event()
        work = self._watched(what, make(), given_up) if asynchronous else self._threaded(make, given_up)
        task = asyncio.create_task(_contained(what, work), name=what)
        try:
            await asyncio.wait({task}, timeout=timeout_seconds)
        except asyncio.CancelledError:
            await self._end(task, what, given_up)
            raise
        if not task.done() and await self._end(task, what, given_up):
            raise asyncio.CancelledError
        if given_up.is_set():
            raise HookTimedOut(f"{what} did not end within {timeout_seconds:g} s and was abandoned", abandoned=True)
        if task.cancelled():
            raise HookTimedOut(f"{what} did not end within {timeout_seconds:g} s and was cancelled", abandoned=False)
        return task.result()

    def note(self, hook: str, error: BaseException) -> None:
        """Log a failure that changes nothing for anybody."""
        log.warning("driver %s: %s failed: %s", self.driver, hook, error)

    def close(self) -> None:
        """End the driver's threads; the next plain ``def`` hook starts new ones."""
        self._pool.close()
        self._pool = self._new_pool()

    def _new_pool(self) -> DaemonPool:
        return DaemonPool(f"sojourn-{self.driver}", self._threads)

    async def _end(self, task: asyncio.Task[Any], what: str, given_up: asyncio.Event) -> bool:
        """Cancel a hook and see its end, or abandon it; say whether our own caller was cancelled (again) meanwhile."""
        task.cancel()
        cancelled = await _settled(task, self._abandon_after_seconds)
        if task.done():
            return cancelled
        given_up.set()
        self.abandoned += 1
        self._pool.replace_one()
        log.error("%s ignored its cancellation and was abandoned", what)
        # The second cancellation ends our side of the call; the loop could not be closed while the task is pending.
        task.cancel()
        return await _settled(task, None) or cancelled

    async def _threaded(self, make: Callable[[], T], given_up: asyncio.Event) -> T:
        future = asyncio.wrap_future(self._pool.submit(make))
        # Cancelling cannot stop a thread: wait for its end, so that "cancelled" never means "still running".
        while not future.done():
            try:
                await asyncio.shield(asyncio.wait({future}))
            except asyncio.CancelledError:
                if given_up.is_set():
                    raise
        return future.result()

    async def _watched(self, what: str, work: Awaitable[T], given_up: asyncio.Event) -> T:
        return await _stepwise(
            work,
            report=lambda seconds: self._report_blocked(what, seconds),
            limit_seconds=self._blocked_after_seconds,
            abandon=lambda steps: given_up.is_set() and self._keep(steps),
        )

    def _keep(self, steps: Any) -> bool:
        # Referenced for ever: collecting a coroutine that ignores its end is an error nobody could act on.
        self._kept.append(steps)
        return True

    def _report_blocked(self, what: str, seconds: float) -> None:
        self.blocked += 1
        log.warning("%s blocked the event loop for %.1f s; an async hook must not", what, seconds)


async def _settled(task: asyncio.Task[Any], seconds: float | None) -> bool:
    """Wait for a task's end, however often we are cancelled; say whether we were.

    Whoever is told twice must not run away: a hook that nobody gives up would hold the end of the event loop for ever.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    cancelled = False
    while not task.done() and (deadline is None or time.monotonic() < deadline):
        try:
            await asyncio.wait({task}, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def being_cancelled() -> bool:
    """Whether a CancelledError in the current task is ours: foreign code may raise one of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _contained(what: str, work: Coroutine[Any, Any, T]) -> T:
    """Turn every foreign exception into a `DriverBug` within the hook's own task.

    Outside of it it is too late: a ``SystemExit`` that leaves a task ends the host's event loop.
    """
    try:
        return await work
    except (DriverError, KeyboardInterrupt):
        raise
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        raise DriverBug(f"{what} raised CancelledError though nobody cancelled it") from None
    except BaseException as error:
        raise DriverBug(f"{what} raised {type(error).__name__}, which is not a sojourn.DriverError: {error}") from error


@types.coroutine
def _stepwise(
    work: Awaitable[T],
    *,
    report: Callable[[float], None],
    limit_seconds: float,
    abandon: Callable[[Any], bool],
) -> Generator[Any, Any, T]:
    """Drive ``work`` step by step and report each step that keeps the event loop longer than ``limit_seconds``.

    Once ``abandon`` says so, an exception thrown in (a cancellation) ends this side and leaves ``work`` where it stands.
    """
    steps = work.__await__()
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        started = time.monotonic()
        try:
            waiting_for = steps.send(sent) if thrown is None else steps.throw(thrown)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            seconds = time.monotonic() - started
            if seconds > limit_seconds:
                report(seconds)
        sent, thrown = None, None
        try:
            sent = yield waiting_for
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            if abandon(steps):
                raise
            thrown = error
