"""Moves a command's bytes between its pipes and the caller within the event loop, waiting where the other side is slow.

No thread per stream: pipes are non-blocking, and a pump that has nothing to do costs nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, Literal

from sojourn import DriverError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn import CommandIO

__all__ = ["InputFeeder", "OutputPump"]

_READ_BYTES = 1 << 18


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class OutputPump:
    """Passes one output stream on to the caller, waiting while the caller is busy."""

    def __init__(self, io: CommandIO, stream: Literal["stdout", "stderr"], descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.stream = stream
        self.descriptor = descriptor
        self.at_end = False
        self._io = io
        self._loop = asyncio.get_running_loop()
        self._read_so_far = 0
        self._read_limit: int | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Pass on until the stream ends, or up to what `finish` fixed."""
        while (room := self._room()) > 0:
            try:
                data = os.read(self.descriptor, room)
            except BlockingIOError:
                await self._readable()
                continue
            if not data:
                self.at_end = True
                return
            self._read_so_far += len(data)
            await self._io.write(self.stream, data)
            # A write that never waits and a command that never pauses would hold the loop.
            await asyncio.sleep(0)

    def finish(self) -> None:
        """Read no further than to what is in the pipe now; what comes later is not this command's."""
        waiting = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, b"\0\0\0\0"))[0]
        self._read_limit = self._read_so_far + waiting
        self._wake()

    def close(self) -> None:
        """Close our end of the pipe."""
        if self._waiter is not None:
            self._loop.remove_reader(self.descriptor)
        os.close(self.descriptor)
        self.descriptor = -1

    def _room(self) -> int:
        return _READ_BYTES if self._read_limit is None else min(_READ_BYTES, self._read_limit - self._read_so_far)

    async def _readable(self) -> None:
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self.descriptor, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self.descriptor >= 0:
                self._loop.remove_reader(self.descriptor)

    def _wake(self) -> None:
        if self._waiter is not None:
            _resolve(self._waiter)


class InputFeeder:
    """Feeds the caller's stdin to the command; owns the pipe's write end."""

    def __init__(self, source: AsyncIterator[bytes], descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._source = source
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Write everything, then close; a command that does not read on is normal."""
        try:
            async for data in _checked(self._source):
                await self._write(memoryview(data))
        except BrokenPipeError:
            return
        finally:
            self.close()

    def close(self) -> None:
        """Close the command's stdin; again is fine."""
        if self._descriptor >= 0:
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    async def _write(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._descriptor, _resolve, waiter)
        try:
            await waiter
        finally:
            if self._descriptor >= 0:
                self._loop.remove_writer(self._descriptor)


async def _checked(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for data in source:
            yield data
    except DriverError:
        raise
    except Exception as error:
        raise InvalidArgument(f"the stdin given to the command failed with {type(error).__name__}") from error
