"""Run one command through a driver: limits checked before, stopped on time, and never taken for a success it was not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from sojourn.errors import DriverBug, InvalidArgument, OutcomeUnknown
from sojourn.logs import logger
from sojourn.models import CommandOutcome, ExecuteRequest, ExecuteResult, Outcome, StopReason
from sojourn.resolvers import Redactor
from sojourn.secrets import Secret
from sojourn.streams import LiveIO

__all__ = ["Execution", "check_argv", "check_env"]

log = logger("sojourn.execution")

BACKSTOP_SECONDS = 2.0
"""The time limit is the driver's to enforce, inside the environment; only this much later does the core ask for the end itself."""
STOP_SLACK_SECONDS = 2.0
"""A stopped command is back within its grace period and this; later than that it is lost."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return ``argv`` as a tuple.

    Raises:
        InvalidArgument: it is one string, empty, or holds something else than text without NUL.
    """
    if isinstance(argv, str | bytes):
        raise InvalidArgument("argv is one string; pass a list of words, or ['sh', '-c', command] to have a shell")
    words = tuple(argv)
    if not words or not words[0]:
        raise InvalidArgument("argv is empty: there is no command to run")
    for index, word in enumerate(words):
        if not isinstance(word, str):
            raise InvalidArgument(f"argv[{index}] is {type(word).__name__}, not text")
        if "\0" in word:
            raise InvalidArgument(f"argv[{index}] holds a NUL character, which no command line can carry")
    return words


def check_env(env: Mapping[str, object]) -> None:
    """Check names and values of environment variables.

    Raises:
        InvalidArgument: naming the variable, never its value.
    """
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(str(name)):
            raise InvalidArgument(f"environment variable name {name!r} does not match [A-Za-z_][A-Za-z0-9_]*")
        if not isinstance(value, str | Secret):
            raise InvalidArgument(f"environment variable {name} is {type(value).__name__}, not text or a Secret")
        if isinstance(value, str) and "\0" in value:
            raise InvalidArgument(f"environment variable {name} holds a NUL character")


@attrs.define(eq=False)
class Execution:
    """One command on its way: the driver's call, its stop signal and its output.

    Args:
        request: what to run.
        io: its live side.
        call: runs the driver's ``execute``.
        redactor: knows the command's secrets, for whoever puts its output into a record.
    """

    request: ExecuteRequest
    io: LiveIO
    call: Callable[[ExecuteRequest, LiveIO], Awaitable[CommandOutcome]]
    redactor: Redactor = attrs.field(factory=Redactor)
    started_at: datetime = attrs.field(factory=lambda: datetime.now(UTC), init=False)
    doubtful: bool = attrs.field(default=False, init=False)
    """Whether the driver left us in the dark: the place must not be handed out again."""
    ended: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    async def run(self) -> ExecuteResult:
        """Run the command and return what became of it.

        When the calling task is cancelled the whole process tree is ended first, then CancelledError is raised.

        Raises:
            DriverError: the command could not be run (effect none), or the resource is gone.
            Exception: what the caller's own stdin raised; the command was ended.
        """
        began = time.monotonic()
        task = asyncio.ensure_future(self.call(self.request, self.io))
        try:
            outcome = await self._outcome(task)
        finally:
            self.ended.set()
            await self.io.end()
        if self.io.stdin_error is not None:
            raise self.io.stdin_error
        return self._result(outcome, timedelta(seconds=time.monotonic() - began))

    async def _outcome(self, task: asyncio.Future[CommandOutcome]) -> CommandOutcome:
        try:
            await self._until_ended(task)
        except asyncio.CancelledError:
            self.io.stop.set(StopReason.CANCELLED)
            await self._until_stopped(task)
            _seen(task)
            raise
        if not task.done():
            return self._lost("the driver did not report the end of the command in time after it was told to stop")
        try:
            return task.result()
        except (OutcomeUnknown, DriverBug) as error:
            log.warning("command %s is lost: %s", self.request.exec_id, error)
            return self._lost(str(error))

    async def _until_ended(self, task: asyncio.Future[CommandOutcome]) -> None:
        """Wait for the end, ask for it when the back-stop is due, and give up on a driver that does not obey."""
        limit = self.request.timeout_seconds
        stop = asyncio.ensure_future(self.io.stop.wait())
        either: set[asyncio.Future[Any]] = {task, stop}
        try:
            await asyncio.wait(
                either,
                timeout=None if limit is None else limit + BACKSTOP_SECONDS + self.request.grace_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            stop.cancel()
        if not task.done():
            self.io.stop.set(StopReason.TIMEOUT)
            await self._until_stopped(task)

    async def _until_stopped(self, task: asyncio.Future[CommandOutcome]) -> None:
        """Wait for a driver that was told to stop; past its time cancel it and leave its end to the guard."""
        deadline = time.monotonic() + self.request.grace_seconds + STOP_SLACK_SECONDS
        cancelled = False
        while not task.done() and (left := deadline - time.monotonic()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError:
                # Told twice: the tree still has to end, and its end to be seen.
                cancelled = True
        if not task.done():
            self.doubtful = True
            task.cancel()
            task.add_done_callback(_seen)
        if cancelled:
            raise asyncio.CancelledError

    def _lost(self, detail: str) -> CommandOutcome:
        self.doubtful = True
        return CommandOutcome(outcome=Outcome.LOST, output_complete=False, detail=detail)

    def _result(self, outcome: CommandOutcome, elapsed: timedelta) -> ExecuteResult:
        out, err = self.io.kept["stdout"], self.io.kept["stderr"]
        return ExecuteResult(
            exec_id=self.request.exec_id,
            outcome=outcome.outcome,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            stdout=out.value(),
            stderr=err.value(),
            stdout_dropped_bytes=out.dropped_bytes,
            stderr_dropped_bytes=err.dropped_bytes,
            output_complete=outcome.output_complete,
            started_at=outcome.started_at or self.started_at,
            duration=outcome.duration if outcome.duration is not None else elapsed,
            kill_confirmed=outcome.kill_confirmed,
            detail=outcome.detail,
        )


def _seen(task: asyncio.Future[CommandOutcome]) -> None:
    """Look at a task's end, or asyncio complains that nobody did."""
    if task.done() and not task.cancelled():
        task.exception()
