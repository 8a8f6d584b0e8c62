"""Commands as processes of this machine, found again by the variable that is in the environment of each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sojourn

__all__ = ["end_processes", "run_command"]

MARK = "SOJOURN_RESOURCE_ID"
EXEC_MARK = "SCRATCH_EXEC_ID"
KILL_SECONDS = 1.5
DRAIN_SECONDS = 0.2
PIECE_BYTES = 64 * 1024


async def run_command(request: sojourn.ExecuteRequest, io: sojourn.CommandIO, cwd: str) -> sojourn.CommandOutcome:
    """Run one command to its end, its time limit, or the stop signal."""
    base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = {**base, **request.env, MARK: request.resource_id, EXEC_MARK: request.exec_id}
    pipe = asyncio.subprocess.PIPE
    stdin = asyncio.subprocess.DEVNULL if io.stdin is None else pipe
    try:
        process = await asyncio.create_subprocess_exec(
            *request.argv, cwd=cwd, env=env, stdin=stdin, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except FileNotFoundError:
        return sojourn.CommandOutcome(outcome=sojourn.Outcome.EXITED, exit_code=127)
    except PermissionError:
        return sojourn.CommandOutcome(outcome=sojourn.Outcome.EXITED, exit_code=126)
    except OSError as error:
        raise sojourn.InvalidArgument(f"the command cannot be started: {error.strerror}") from error
    return await _follow(process, request, io)


async def _follow(
    process: asyncio.subprocess.Process, request: sojourn.ExecuteRequest, io: sojourn.CommandIO
) -> sojourn.CommandOutcome:
    pipes: tuple[tuple[sojourn.Stream, asyncio.StreamReader | None], ...]
    pipes = (("stdout", process.stdout), ("stderr", process.stderr))
    readers = [Reader(pipe, stream, io) for stream, pipe in pipes if pipe is not None]
    feeder = asyncio.create_task(_feed(process, io))
    ended, stop = asyncio.create_task(_end_of(process)), asyncio.create_task(io.stop.wait())
    try:
        await asyncio.wait({ended, stop}, timeout=request.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            # What is still in the pipes is read; a child that keeps them open does not hold the call.
            await _drained(readers)
            return _by_itself(ended.result())
        confirmed = await _end_tree(f"{EXEC_MARK}={request.exec_id}", request.grace_seconds)
        await _drained(readers)
        outcome = sojourn.Outcome.CANCELLED if io.stop.is_set() else sojourn.Outcome.TIMED_OUT
        return sojourn.CommandOutcome(outcome=outcome, kill_confirmed=confirmed)
    except asyncio.CancelledError:
        await asyncio.shield(_end_tree(f"{EXEC_MARK}={request.exec_id}", 0.0))
        raise
    finally:
        await _abandon([*(reader.task for reader in readers), feeder, ended, stop])
        process._transport.close()  # type: ignore[attr-defined]


async def _end_of(process: asyncio.subprocess.Process) -> int:
    """Return the status as soon as the process ended; `Process.wait` would wait for the pipes as well."""
    while process.returncode is None:  # noqa: ASYNC110 - there is no event of that
        await asyncio.sleep(0.01)
    return process.returncode


async def _drained(readers: list[Reader]) -> None:
    """Wait until the output has ended or, when a child keeps it open, nothing has come for a moment."""
    while any(not reader.task.done() and not reader.silent() for reader in readers):  # noqa: ASYNC110 - time decides
        await asyncio.sleep(0.01)


async def _abandon(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Reader:
    """Passes one stream on as it comes; reads no further while the other side is behind."""

    def __init__(self, source: asyncio.StreamReader, stream: sojourn.Stream, io: sojourn.CommandIO) -> None:
        self._waiting_since: float | None = None
        self.task = asyncio.create_task(self._run(source, stream, io))

    def silent(self) -> bool:
        """Whether it has waited for the command, not for its own reader, for a moment."""
        return self._waiting_since is not None and time.monotonic() - self._waiting_since > DRAIN_SECONDS

    async def _run(self, source: asyncio.StreamReader, stream: sojourn.Stream, io: sojourn.CommandIO) -> None:
        while True:
            self._waiting_since = time.monotonic()
            data = await source.read(PIECE_BYTES)
            self._waiting_since = None
            if not data:
                return
            await io.write(stream, data)


async def _feed(process: asyncio.subprocess.Process, io: sojourn.CommandIO) -> None:
    if process.stdin is None or io.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        async for piece in io.stdin:
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.close()


def _by_itself(status: int) -> sojourn.CommandOutcome:
    if status >= 0:
        return sojourn.CommandOutcome(outcome=sojourn.Outcome.EXITED, exit_code=status)
    name = signal.Signals(-status).name
    return sojourn.CommandOutcome(outcome=sojourn.Outcome.SIGNALED, exit_code=128 - status, signal=name)


# -- ending -----------------------------------------------------------------------------------------------------------


async def _end_tree(mark: str, grace_seconds: float) -> bool:
    """TERM, grace, KILL to everything that carries ``mark``; say whether all of it is gone."""
    send(mark, signal.SIGTERM)
    until = time.monotonic() + grace_seconds
    while time.monotonic() < until and marked(mark):  # noqa: ASYNC110 - other processes tell nobody when they end
        await asyncio.sleep(0.02)
    until = time.monotonic() + KILL_SECONDS
    while left := marked(mark):
        if time.monotonic() > until:
            return False
        send(mark, signal.SIGKILL)
        await asyncio.sleep(0.02)
    return not left


def end_processes(resource_id: str) -> None:
    """Kill everything that was started in a resource.

    Raises:
        Unavailable: something is still there.
    """
    mark = f"{MARK}={resource_id}"
    until = time.monotonic() + KILL_SECONDS
    while marked(mark):
        if time.monotonic() > until:
            raise sojourn.Unavailable(
                f"processes of {resource_id} do not end: {marked(mark)}; kill them and release again"
            )
        send(mark, signal.SIGKILL)
        time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """Return the processes that have the variable ``mark`` (``NAME=value``) in their environment."""
    wanted, found = b"\0" + os.fsencode(mark) + b"\0", []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def send(mark: str, number: signal.Signals) -> None:
    """Send a signal to everything that carries ``mark``."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
