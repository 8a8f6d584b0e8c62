"""How a fake command runs: started, fed, bounded in time, and ended with all that it started."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import attrs

from sojourn.models import CommandIO, CommandOutcome, ExecuteRequest, Outcome, Stream
from sojourn.testing.fake.world import FakeCommand, FakeProcess, FakeProgram, FakeResource, SignalDeath

__all__ = ["FakeRun"]

KILL_SECONDS = 1.0
"""How long a program may take to be cancelled; one that swallows it is not ended."""


class FakeRun:
    """One command in one resource.

    Args:
        resource: where it runs.
        request: what to run.
        io: its streams and stop signal.
        programs: by name; None instead of a program is a file that is not executable.
        cwd: where it runs.
        env: its whole environment.
    """

    def __init__(
        self,
        resource: FakeResource,
        request: ExecuteRequest,
        io: CommandIO,
        programs: Mapping[str, FakeProgram | None],
        cwd: str,
        env: Mapping[str, str],
    ) -> None:
        self._resource = resource
        self._request = request
        self._io = io
        self._programs = programs
        self._cwd = cwd
        self._env = env
        self._processes: list[FakeProcess] = []
        self._open = True

    async def run(self) -> CommandOutcome:
        """Run it to its end, whatever that is."""
        started_at, began = datetime.now(UTC), time.monotonic()
        outcome = await self._run()
        self._open = False
        return attrs.evolve(outcome, started_at=started_at, duration=timedelta(seconds=time.monotonic() - began))

    async def _run(self) -> CommandOutcome:
        name = self._request.argv[0]
        if name not in self._programs:
            return await self._refused(127, f"{name}: not found")
        program = self._programs[name]
        if program is None:
            return await self._refused(126, f"{name}: permission denied")
        main = self._start(program, self._command())
        assert main.task is not None
        try:
            ended = await self._first(main.task)
        except asyncio.CancelledError:
            await self._end(grace_seconds=0.0)
            raise
        if ended == "main":
            return _outcome(main.task)
        confirmed = await self._end(self._request.grace_seconds)
        outcome = Outcome.CANCELLED if ended == "stop" else Outcome.TIMED_OUT
        return CommandOutcome(outcome=outcome, kill_confirmed=confirmed)

    async def _refused(self, code: int, message: str) -> CommandOutcome:
        await self._io.write("stderr", f"{message}\n".encode())
        return CommandOutcome(outcome=Outcome.EXITED, exit_code=code)

    async def _first(self, main: asyncio.Task[int]) -> Literal["main", "stop", "time"]:
        """Wait for the end, the stop signal or the deadline, and say which of them came."""
        stop = asyncio.ensure_future(self._io.stop.wait())
        try:
            done, _ = await asyncio.wait(
                {main, stop}, timeout=self._request.timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stop.cancel()
        if main in done:
            return "main"
        return "stop" if stop in done else "time"

    async def _end(self, grace_seconds: float) -> bool:
        """TERM, grace, KILL to the whole tree; say whether all of it is gone."""
        for process in self._processes:
            process.terminate()
        if not await self._wait(grace_seconds):
            for process in self._processes:
                process.kill()
        return await self._wait(KILL_SECONDS)

    async def _wait(self, seconds: float) -> bool:
        tasks = {process.task for process in self._processes if process.task is not None and process.alive}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return not any(process.alive for process in self._processes)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _command(self) -> FakeCommand:
        request = self._request
        return FakeCommand(
            argv=request.argv,
            cwd=self._cwd,
            env=self._env,
            user=request.user or "root",
            stdin=self._io.stdin if self._io.stdin is not None else _nothing(),
            resource=self._resource,
            process=FakeProcess(request.argv, self._env),
            write=self._write,
            start=self._start_child,
        )

    def _start(self, program: FakeProgram, command: FakeCommand) -> FakeProcess:
        process = command.process
        process.task = asyncio.create_task(_main(program, command))
        # Its end may be nobody's business, and an exception that nobody looks at is reported.
        process.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._processes.append(process)
        self._resource.add(process)
        return process

    def _start_child(self, program: FakeProgram, parent: FakeCommand, traps_term: bool) -> FakeProcess:
        child = FakeProcess(parent.argv, parent.env, traps_term=traps_term)
        return self._start(program, attrs.evolve(parent, process=child))

    async def _write(self, stream: Stream, data: bytes) -> None:
        # What comes after the command's end belongs to nobody.
        if self._open:
            await self._io.write(stream, data)


async def _main(program: FakeProgram, command: FakeCommand) -> int:
    return await program(command)


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes, ...]():
        yield piece


def _outcome(main: asyncio.Task[int]) -> CommandOutcome:
    """Tell how a program that ended by itself did."""
    if main.cancelled():
        return _signaled("SIGKILL")
    error = main.exception()
    if isinstance(error, SignalDeath):
        return _signaled(error.name)
    if error is not None:
        return CommandOutcome(outcome=Outcome.LOST, detail=f"the fake program raised {type(error).__name__}: {error}")
    return CommandOutcome(outcome=Outcome.EXITED, exit_code=main.result())


def _signaled(name: str) -> CommandOutcome:
    return CommandOutcome(outcome=Outcome.SIGNALED, exit_code=128 + signal.Signals[name], signal=name)
