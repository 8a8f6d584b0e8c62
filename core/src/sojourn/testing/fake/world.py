"""What exists in a fake provider: resources, the files in them, and the processes that run there.

A process is an asyncio task of a Python program; it ends with the event loop that it was started in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TypeAlias

import attrs

from sojourn.models import CommandOutcome, ResourceState, Stream

__all__ = ["FakeCommand", "FakeProcess", "FakeProgram", "FakeResource", "FakeWorld", "SignalDeath"]

ROOT = "/work"


class SignalDeath(Exception):
    """A fake process was ended by a signal; ``name`` is like ``SIGSEGV``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@attrs.define(eq=False)
class FakeProcess:
    """One process: a program at work.

    Args:
        argv: as another process of the machine would see it.
        env: its environment.
        traps_term: TERM is only shown to the program, in `FakeCommand.term`; otherwise it ends the process.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(repr=False)
    traps_term: bool = False
    term: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    task: asyncio.Task[int] | None = attrs.field(default=None, init=False)

    @property
    def alive(self) -> bool:
        """Whether it still runs; nothing runs any more when its event loop is closed."""
        return self.task is not None and not self.task.done() and not self.task.get_loop().is_closed()

    def terminate(self) -> None:
        """Send TERM."""
        if self.traps_term:
            self._from_its_loop(self.term.set)
        else:
            self.kill()

    def kill(self) -> None:
        """Send KILL: the program is cancelled."""
        if self.task is not None and self.alive:
            self._from_its_loop(self.task.cancel)

    def _from_its_loop(self, call: Callable[[], object]) -> None:
        if self.task is not None and self.alive:
            self.task.get_loop().call_soon_threadsafe(call)


@attrs.define(eq=False, kw_only=True)
class FakeResource:
    """One resource: whose it is, what is in it, and what runs there.

    Args:
        files: contents by absolute path.
        directories: what a command may have as its cwd.
        processes: everything that was started and not seen to end yet.
        started: the world's own list of what was started, which a driver cannot take a process off.
        runs: the outcome of each command by its exec_id.
    """

    installation_id: str
    resource_id: str
    labels: Mapping[str, str]
    spec: str
    created_epoch: int
    epoch: int
    local_path: str | None = None
    state: ResourceState = ResourceState.RUNNING
    created_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    files: dict[str, bytes] = attrs.field(factory=dict)
    directories: set[str] = attrs.field(factory=lambda: {"/", "/tmp", ROOT})  # noqa: S108 - a name in a fake
    processes: list[FakeProcess] = attrs.field(factory=list)
    runs: dict[str, Future[CommandOutcome]] = attrs.field(factory=dict)
    started: list[FakeProcess] = attrs.field(factory=list)

    def add(self, process: FakeProcess) -> None:
        """Note that a process was started."""
        self.processes.append(process)
        self.started.append(process)

    def living(self) -> list[FakeProcess]:
        """Return what runs now."""
        self.processes = [process for process in self.processes if process.alive]
        return list(self.processes)

    async def end_processes(self) -> None:
        """Kill everything and return when it is gone."""
        while living := self.living():
            for process in living:
                process.kill()
            await asyncio.sleep(0.001)


class FakeWorld:
    """A fake provider. Two drivers that share one see the same resources, as two processes would."""

    def __init__(self) -> None:
        self.resources: dict[str, FakeResource] = {}
        self.started: list[FakeProcess] = []
        self.lock = threading.RLock()

    def processes(self) -> list[FakeProcess]:
        """Return everything that runs, also where the resource is gone."""
        with self.lock:
            self.started[:] = [process for process in self.started if process.alive]
            return list(self.started)

    def remove(self, resource_id: str) -> None:
        """Make a resource vanish behind the driver's back, with all that runs in it."""
        with self.lock:
            resource = self.resources.pop(resource_id)
        for process in resource.living():
            process.kill()


Write = Callable[[Stream, bytes], Awaitable[None]]
FakeProgram: TypeAlias = "Callable[[FakeCommand], Awaitable[int]]"
"""A program: gets its `FakeCommand` and returns its exit status. Cancellation is its KILL; it must not swallow it."""


@attrs.define(eq=False, kw_only=True)
class FakeCommand:
    """What a program sees: its arguments, its environment, its streams, and the resource it runs in.

    Args:
        argv: program name and arguments.
        cwd: where it runs.
        env: its whole environment.
        user: as whom.
        stdin: what is fed to it; empty when nothing is.
        resource: where it runs, for its files.
        process: itself.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    user: str
    stdin: AsyncIterator[bytes]
    resource: FakeResource
    process: FakeProcess
    _write: Write = attrs.field(alias="write")
    _start: Callable[[FakeProgram, FakeCommand, bool], FakeProcess] = attrs.field(alias="start")

    @property
    def term(self) -> asyncio.Event:
        """Set when TERM came, after `trap_term`."""
        return self.process.term

    def trap_term(self) -> None:
        """From now on TERM sets `term` and does nothing else."""
        self.process.traps_term = True

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write to ``stdout`` or ``stderr``; waits while the reader is behind."""
        await self._write(stream, data)

    def die(self, name: str) -> None:
        """End as if by the signal ``name``, e.g. ``SIGKILL``."""
        raise SignalDeath(name)

    def spawn(self, program: FakeProgram, *, traps_term: bool = False) -> FakeProcess:
        """Start ``program`` in the background with the same streams; it may outlive this command."""
        return self._start(program, self, traps_term)
