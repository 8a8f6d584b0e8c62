"""The surroundings of a benchmark: a store and a state directory of its own, markers, and a look at what was left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from bench_rows import Left

from sojourn import Orchestrator, Session, Settings

__all__ = ["Place", "count_left", "interleaved", "kill", "marker", "opened", "processes_with", "raw", "timed"]

PATIENCE_SECONDS = 2.0
ENDED = ("released", "expired", "failed")
_DROPPED = ("SOJOURN_", "XDG_STATE_HOME")


@attrs.frozen(kw_only=True)
class Place:
    """Where a benchmark works.

    Args:
        orchestrator: open, with a store in a file.
        folder: everything that it writes is in here.
        workspace: an empty tree of the caller's.
    """

    orchestrator: Orchestrator
    folder: Path
    workspace: Path

    async def environment_of(self, session: Session) -> dict[str, str]:
        """Return the environment that commands get, so that the floor's commands get the same."""
        result = await session.execute(["env", "-0"])
        return dict(pair.split("=", 1) for pair in result.stdout.decode().split("\0") if pair)


@asynccontextmanager
async def opened(left: Left, settings: Settings | None = None) -> AsyncIterator[Place]:
    """Open an orchestrator on a fresh store; at the end count into ``left`` what is still there."""
    folder = Path(tempfile.mkdtemp(prefix="sojourn-bench-"))
    for name in [name for name in os.environ if name.startswith(_DROPPED)]:
        del os.environ[name]
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    workspace = folder / "workspace"
    workspace.mkdir()
    try:
        async with Orchestrator.open(folder / "store.db", settings=settings) as orchestrator:
            yield Place(orchestrator=orchestrator, folder=folder, workspace=workspace)
        left.add(count_left(folder, folder / "store.db"))
    finally:
        shutil.rmtree(folder)


def count_left(folder: Path, store: Path) -> Left:
    """Count processes that were started for ``folder``, leases of ``store`` that have not ended, and files beside the store."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (processes := processes_with(str(folder))) and time.monotonic() < until:
        time.sleep(0.02)
    kill(processes)
    with contextlib.closing(sqlite3.connect(store)) as connection:
        marks = ", ".join("?" for _ in ENDED)
        query = f"SELECT count(*) FROM leases WHERE status NOT IN ({marks})"
        leases = connection.execute(query, ENDED).fetchone()[0]
    files = [
        path for path in (folder / "state").rglob("*") if not path.is_dir() and not path.name.startswith(store.name)
    ]
    return Left(len(processes), leases, len(files))


def marker() -> str:
    """Return digits that no other process has in its arguments; ``sleep 300.DIGITS`` is a good bearer."""
    return f"{random.getrandbits(60):018d}"


def processes_with(text: str) -> list[int]:
    """Return the processes, without ourselves, that have ``text`` in their arguments or their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if text.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def kill(pids: list[int]) -> None:
    """End processes that a benchmark started and that its subject left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Return how long it took, in milliseconds."""
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1000


async def interleaved(
    count: int, *works: Callable[[], Awaitable[object]], pause_seconds: float = 0.0
) -> list[list[float]]:
    """Time several works in turn, each round in another order; return one list of milliseconds for each work."""
    times: list[list[float]] = [[] for _ in works]
    for index in range(count):
        for step in range(len(works)):
            which = (index + step) % len(works)
            if pause_seconds:
                await asyncio.sleep(pause_seconds)
            times[which].append(await timed(works[which]))
    return times


async def raw(*argv: str, env: Mapping[str, str], cwd: str | os.PathLike[str]) -> bytes:
    """Run a command with asyncio alone and return its stdout; it has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{argv[0]} ended with {process.returncode}")
    return stdout
