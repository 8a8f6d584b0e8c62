"""What a clause may not leave behind in this process: descriptors, tasks, files."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DESCRIPTORS_ALLOWED", "open_descriptors", "own_temporary_directory", "tasks_left", "until"]

DESCRIPTORS_ALLOWED = 2
PATIENCE_SECONDS = 1.0


def open_descriptors() -> int | None:
    """Return how many descriptors this process has open, or None where that cannot be said."""
    gc.collect()
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return None


async def tasks_left() -> list[str]:
    """Return the names of the tasks beside this one that do not end by themselves within a second."""
    stop = time.monotonic() + PATIENCE_SECONDS
    while True:
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not left or time.monotonic() > stop:
            return [f"{task.get_name()} ({_where(task)})" for task in left]
        await asyncio.sleep(0.01)


def _where(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", "?")


def until(left: Callable[[], list[str]], seconds: float = PATIENCE_SECONDS) -> list[str]:
    """Ask ``left`` until it answers nothing or the time is over; return its last answer."""
    stop = time.monotonic() + seconds
    while (answer := left()) and time.monotonic() < stop:
        time.sleep(0.02)
    return answer


@contextmanager
def own_temporary_directory(folder: Path) -> Iterator[None]:
    """Let everything in this process that wants a temporary file make it in ``folder``."""
    before, known = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = known
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
