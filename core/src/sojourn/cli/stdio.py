"""Our own stdin and stdout while a command runs: bytes as they are, in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator

from sojourn.cli.failures import CommandLineError
from sojourn.models import Stream
from sojourn.threads import DaemonPool

__all__ = ["Output", "ReaderGone", "Stdin"]

PIECE_BYTES = 64 * 1024
FOREGROUND_CHECK_MILLISECONDS = 200
_DESCRIPTORS: dict[Stream, int] = {"stdout": 1, "stderr": 2}


class ReaderGone(Exception):
    """Whoever read our output has closed it."""


class Output:
    """Writes the command's output to ours, past Python's buffers: those hold a lock that a stuck write would keep for ever.

    Attributes:
        written: how many bytes of each stream were passed on.
    """

    def __init__(self) -> None:
        self._pool = DaemonPool("sojourn-cli-output", 1)
        self._pending: asyncio.Future[None] | None = None
        self.written: dict[Stream, int] = {"stdout": 0, "stderr": 0}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write all of ``data``; waits as long as the reader makes us.

        Raises:
            ReaderGone: the other end was closed.
            CommandLineError: it cannot be written for another reason, such as a full disk.
        """
        self._pending = asyncio.wrap_future(self._pool.submit(lambda: self._write(stream, data)))
        # Cancelling us does not stop the thread in the middle of its write.
        await asyncio.shield(self._pending)

    async def settle(self) -> None:
        """Wait for a write whose caller was cancelled."""
        if self._pending is not None:
            await asyncio.wait({self._pending})

    def _write(self, stream: Stream, data: bytes) -> None:
        descriptor = _DESCRIPTORS[stream]
        view = memoryview(data)
        while view:
            try:
                count = os.write(descriptor, view)
            except BlockingIOError:
                # Somebody who shares this pipe or terminal has made it non-blocking.
                select.select([], [descriptor], [])
                continue
            except BrokenPipeError:
                raise ReaderGone from None
            except OSError as error:
                raise CommandLineError(f"cannot write to {stream}: {error.strerror}", "output_failed") from error
            self.written[stream] += count
            view = view[count:]


class Stdin:
    """Our stdin as a stream of bytes for a command: read only when the command asks, and never after `close`."""

    def __init__(self) -> None:
        self._pool = DaemonPool("sojourn-cli-stdin", 1)
        self._wake, self._waker = os.pipe()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._closed:
            piece = await asyncio.wrap_future(self._pool.submit(self._read))
            if not piece:
                return
            yield piece

    def close(self) -> None:
        """Stop reading: what was not read belongs to whoever comes after us."""
        if not self._closed:
            self._closed = True
            os.close(self._waker)

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        background = self._in_background()
        if not background:
            poll.register(0, select.POLLIN)
        while True:
            events = dict(poll.poll(FOREGROUND_CHECK_MILLISECONDS if background else None))
            if self._wake in events:
                return b""
            if background or self._in_background():
                # To read a terminal from the background would stop us and the command's watcher with us.
                return self._read_later()
            try:
                return os.read(0, PIECE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                # A directory, or a terminal that went away: there is nothing (more) to read.
                return b""

    def _read_later(self) -> bytes:
        while self._in_background():
            if select.select([self._wake], [], [], FOREGROUND_CHECK_MILLISECONDS / 1000)[0]:
                return b""
        return self._read()

    def _in_background(self) -> bool:
        try:
            return os.tcgetpgrp(0) != os.getpgrp()
        except OSError:
            return False
