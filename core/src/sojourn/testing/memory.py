"""How much this process grows while a block runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from types import TracebackType

__all__ = ["MemoryWatch"]

SAMPLE_SECONDS = 0.02


class MemoryWatch:
    """Samples the resident memory of this process during ``async with``.

    ``grown_bytes`` is the highest sample less the first; 0 where there is no ``/proc``.
    """

    def __init__(self) -> None:
        self.grown_bytes = 0

    async def __aenter__(self) -> MemoryWatch:
        gc.collect()
        self._first = _resident_bytes()
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._look()

    async def _sample(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(SAMPLE_SECONDS)

    def _look(self) -> None:
        self.grown_bytes = max(self.grown_bytes, _resident_bytes() - self._first)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - sampled often
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
