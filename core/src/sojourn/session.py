"""A session: a realized lease with its commands, given back when its block is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Literal, cast

from sojourn import releasing
from sojourn.commands import CommandSpec, prepare, run_command
from sojourn.errors import LeaseLost, SojournError
from sojourn.execution import Execution
from sojourn.logs import logger
from sojourn.models import Actor, ExecuteResult, StopReason
from sojourn.records import Lease, LeaseOutcome
from sojourn.releasing import Ending, LeaseError, ReleaseReport
from sojourn.runtime import HeldLease, Runtime
from sojourn.secrets import Secret
from sojourn.store import leases
from sojourn.streams import Chunk, CommandStdin, Stdin
from sojourn.targets import ExecutionTarget

if TYPE_CHECKING:
    from sojourn.orchestrator import Acquisition, Realization

__all__ = ["PIPE", "AttachedLease", "Command", "Pipe", "Session"]

log = logger("sojourn.session")


class Pipe(Enum):
    """The type of `PIPE`."""

    PIPE = "pipe"


PIPE = Pipe.PIPE
"""``stdin=PIPE``: the command's stdin is what `Command.stdin` is given."""


class Executor:
    """Runs commands in a lease; what `Session` and `AttachedLease` have in common."""

    def __init__(self, runtime: Runtime, held: HeldLease) -> None:
        self._runtime = runtime
        self._held = held

    @property
    def lease(self) -> Lease:
        """The latest snapshot of the lease's row."""
        return self._held.lease

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease is over or is not ours any more."""
        return self._held.lost

    async def execute(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str | Secret] | None = None,
        stdin: Stdin = None,
        timeout_seconds: float | None = None,
        grace_seconds: float | None = None,
        user: str | None = None,
        output_limit_bytes: int | None = None,
    ) -> ExecuteResult:
        """Run a command to its end. What it did is in the result; nothing is raised for it.

        When the calling task is cancelled, or the time limit is over, the command's whole process tree is ended first.

        Args:
            argv: program and arguments; ``["sh", "-c", text]`` to have a shell.
            cwd: absolute, or relative to the workspace's root, which is the default.
            env: over the run's variables; a `Secret` reference is resolved for this command.
            stdin: bytes, text, a stream of bytes, or None for an empty stdin.
            timeout_seconds: None for no limit.
            grace_seconds: between TERM and KILL; None is the setting.
            user: None is the driver's default.
            output_limit_bytes: how much of each stream is kept, its first and last half; None is the setting.

        Raises:
            EnvironmentRunError: ``execution_failed``: the command could not be run.
            LeaseLost: the lease is over.
        """
        self._runtime.check()
        spec = CommandSpec(
            argv=argv,
            cwd=cwd,
            env=env or {},
            stdin=stdin,
            timeout_seconds=timeout_seconds,
            grace_seconds=grace_seconds,
            user=user,
            output_limit_bytes=output_limit_bytes,
        )
        return await run_command(self._runtime, self._held, await prepare(self._runtime, self._held, spec), spec)

    @asynccontextmanager
    async def start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str | Secret] | None = None,
        stdin: Stdin | Literal[Pipe.PIPE] = None,
        timeout_seconds: float | None = None,
        grace_seconds: float | None = None,
        user: str | None = None,
        output_limit_bytes: int | None = None,
    ) -> AsyncIterator[Command]:
        """Start a command and read its output while it runs; leaving the block ends its whole process tree.

        Args: as for `execute`; ``stdin=PIPE`` feeds it through `Command.stdin`.

        Raises:
            EnvironmentRunError: ``execution_failed``: it could not be run; from here, or from the `Command`'s methods.
            LeaseLost: the lease is over.
        """
        self._runtime.check()
        pipe = CommandStdin() if isinstance(stdin, Pipe) else None
        spec = CommandSpec(
            argv=argv,
            cwd=cwd,
            env=env or {},
            stdin=pipe.pieces() if pipe else cast("Stdin", stdin),
            timeout_seconds=timeout_seconds,
            grace_seconds=grace_seconds,
            user=user,
            output_limit_bytes=output_limit_bytes,
            streamed=True,
        )
        execution = await prepare(self._runtime, self._held, spec)
        command = Command(execution, asyncio.create_task(run_command(self._runtime, self._held, execution, spec)), pipe)
        try:
            yield command
        finally:
            await command._finish()


class AttachedLease(Executor):
    """A lease that somebody else may hold, for a look by hand. Made by `Orchestrator.attach`; leaving it releases nothing.

    Attributes:
        target: where commands run.
    """

    def __init__(self, runtime: Runtime, held: HeldLease, target: ExecutionTarget) -> None:
        """Use `Orchestrator.attach`."""
        super().__init__(runtime, held)
        self.target = target


class Session(Executor):
    """A realized lease. Made by `Orchestrator.session`.

    Attributes:
        acquisition: the environment, why it was chosen, and the lease as acquired.
        realization: where the workspace is.
        release_report: what became of the lease; None until the block is left.
    """

    realization: Realization

    def __init__(self, runtime: Runtime, held: HeldLease, acquisition: Acquisition) -> None:
        """Use `Orchestrator.session`."""
        super().__init__(runtime, held)
        self._failure: str | None = None
        self.acquisition = acquisition
        self.release_report: ReleaseReport | None = None

    @property
    def target(self) -> ExecutionTarget:
        """Where commands run."""
        return self.realization.target

    def fail(self, reason: str) -> None:
        """Let the lease end as ``failed`` though the block is left without an exception, e.g. after a red test run."""
        self._failure = reason

    async def extend(self, by: timedelta | float) -> datetime:
        """Give the lease more time, counted from its present end; return the new end.

        Args:
            by: a duration, or seconds.

        Raises:
            LeaseLost: the lease is over.
        """
        self._runtime.check()
        duration = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self._held.lease = await self._runtime.store.run(leases.extend, self.lease, self.lease.expires_at + duration)
        return self.lease.expires_at

    # -- the end ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _released_at_the_end(self, actor: Actor | None) -> AsyncIterator[None]:
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt) as error:
            await self._release(Ending(LeaseOutcome.EXPIRED, "cancelled", actor=actor), error)
            raise
        except BaseException as error:
            await self._release(Ending(LeaseOutcome.FAILED, self._failure or _reason(error), actor=actor), error)
            raise
        outcome = LeaseOutcome.RELEASED if self._failure is None else LeaseOutcome.FAILED
        await self._release(Ending(outcome, self._failure, actor=actor), None)

    async def _release(self, ending: Ending, error: BaseException | None) -> None:
        try:
            done = await releasing.release_held(self._runtime, self._held, ending)
        except LeaseLost as lost:
            message = f"lease {self.lease.id} was given back by somebody else meanwhile"
            trouble = LeaseLost(message, lease_id=self.lease.id, phase="release")
            trouble.__cause__ = lost
            self._report(LeaseError(lease_id=self.lease.id, error=trouble), error)
            return
        except SojournError as failure:
            self._report(LeaseError(lease_id=self.lease.id, error=failure), error)
            return
        self._held.lease = done
        if done.status.terminal:
            self.release_report = ReleaseReport(released=(done,))
        else:
            self._report(LeaseError(lease_id=done.id, error=releasing.release_error(done)), error)

    def _report(self, trouble: LeaseError, error: BaseException | None) -> None:
        self.release_report = ReleaseReport(errors=(trouble,))
        log.warning("%s", trouble.error, extra={"lease_id": trouble.lease_id})
        if error is not None:
            error.add_note(str(trouble.error))


def _reason(error: BaseException) -> str:
    """Name a failure for the record: only its type, for the text of a foreign exception may hold anything, secrets too."""
    return str(error) if isinstance(error, SojournError) else type(error).__name__


class Command:
    """A running command. One consumer reads its output; while nobody reads, the command waits once 256 KiB are pending.

    Attributes:
        stdin: what feeds it, for a command started with ``stdin=PIPE``; else None.
    """

    def __init__(self, execution: Execution, task: asyncio.Task[ExecuteResult], stdin: CommandStdin | None) -> None:
        """Use `Session.start`."""
        self._execution = execution
        self._task = task
        self._read = False
        self.stdin = stdin

    @property
    def exec_id(self) -> str:
        """The id of this run of the command."""
        return self._execution.request.exec_id

    async def output(self) -> AsyncGenerator[Chunk, None]:
        """Yield output as it comes, both streams, each in its own order, until the command has ended."""
        self._read = True
        async for chunk in self._execution.io.chunks():
            yield chunk

    async def lines(self) -> AsyncIterator[str]:
        """Yield stdout by lines, without their ends, undecodable bytes replaced. stderr is kept for the result only."""
        rest = b""
        async for chunk in self.output():
            if chunk.stream == "stdout":
                *whole, rest = (rest + chunk.data).split(b"\n")
                for line in whole:
                    yield line.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    def request_stop(self) -> None:
        """Ask for the end of the whole process tree (TERM, grace, KILL) and go on reading what it still writes."""
        self._execution.io.stop.set(StopReason.CANCELLED)

    async def stop(self) -> ExecuteResult:
        """End the whole process tree (TERM, grace, KILL) and return what became of the command; unread output is dropped."""
        self.request_stop()
        return await self.wait()

    async def wait(self) -> ExecuteResult:
        """Wait for the end. Without a consumer the output is not held back; the result keeps what its limit allows.

        Raises:
            EnvironmentRunError: ``execution_failed``: it could not be run.
        """
        if not self._read or self._execution.io.stop.is_set():
            await self._execution.io.discard()
        return await asyncio.shield(self._task)

    async def _finish(self) -> None:
        if self.stdin is not None:
            await self.stdin.close()
        self._execution.io.stop.set(StopReason.CANCELLED)
        await self._execution.io.discard()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            # Whoever waited has seen it; to leave the block is not to ask for the result.
            self._task.exception()
