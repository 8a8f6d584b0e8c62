"""The live side of a command: its stop signal, its stdin, and where its output goes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import TypeAlias

import attrs

from sojourn.models import StopReason, Stream
from sojourn.output import OutputBuffer

__all__ = ["BlockingCommandIO", "Chunk", "CommandStdin", "LiveIO", "Stdin", "Stop", "stdin_source"]

Stdin: TypeAlias = bytes | str | AsyncIterable[bytes] | None
"""What a caller may feed to a command: bytes, text (sent as UTF-8), a stream, or nothing."""

STDIN_PIECE_BYTES = 64 * 1024
QUEUE_LIMIT_BYTES = 256 * 1024
"""How much output waits for a slow consumer before the command itself has to wait."""


@attrs.frozen
class Chunk:
    """A piece of output, as it came: cut anywhere, also within a character."""

    stream: Stream
    data: bytes


class Stop:
    """The signal by which the core asks a driver to end a command. The first reason stays."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._reason: StopReason | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def reason(self) -> StopReason | None:
        """Why, once it is set; None before."""
        return self._reason

    def is_set(self) -> bool:
        """Whether the command has to end now."""
        return self._reason is not None

    def set(self, reason: StopReason) -> None:
        """Ask for the end."""
        if self._reason is None:
            self._reason = reason
            self._event.set()
            for callback in self._callbacks:
                callback()

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when it is set, or now if it is."""
        self._callbacks.append(callback)
        if self.is_set():
            callback()

    async def wait(self) -> StopReason:
        """Wait until it is set; give the reason."""
        await self._event.wait()
        assert self._reason is not None  # noqa: S101 - set together with the event
        return self._reason


class LiveIO:
    """What a driver gets beside an `ExecuteRequest`; see `sojourn.CommandIO`.

    Args:
        stdin: the source, or None for an empty stdin.
        limit_bytes: how much of each stream is kept for the result.
        streamed: whether somebody reads the output while the command runs; then a slow reader holds the command back.
    """

    def __init__(self, stdin: AsyncIterator[bytes] | None, limit_bytes: int, *, streamed: bool = False) -> None:
        self.stdin = None if stdin is None else self._fed(stdin)
        self.stdin_error: Exception | None = None
        self.stop = Stop()
        self.kept: dict[Stream, OutputBuffer] = {
            "stdout": OutputBuffer(limit_bytes),
            "stderr": OutputBuffer(limit_bytes),
        }
        self._streamed: bool = streamed
        self._queue: deque[Chunk] = deque()
        self._queued_bytes = 0
        self._changed = asyncio.Condition()
        self._ended = False

    async def _fed(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Hand the caller's stdin on; when the source fails, end the command instead of feeding it half of its input."""
        try:
            async for piece in source:
                yield piece
        except Exception as error:  # noqa: BLE001 - the caller's own; raised to the caller once the command has ended
            self.stdin_error = error
            self.stop.set(StopReason.CANCELLED)

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take output from the driver; wait while the consumer is behind."""
        if self._ended or not data:
            return
        self.kept[stream].add(data)
        if not self._streamed:
            return
        async with self._changed:
            await self._changed.wait_for(lambda: self._queued_bytes < QUEUE_LIMIT_BYTES or self._unread())
            if not self._unread():
                self._queue.append(Chunk(stream, data))
                self._queued_bytes += len(data)
                self._changed.notify_all()

    def _unread(self) -> bool:
        return self._ended or not self._streamed

    async def end(self) -> None:
        """No more output; a waiting consumer sees the end, a late writer is ignored."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Stop streaming: nobody will read, so nothing may wait for a reader."""
        async with self._changed:
            self._streamed = False
            self._queue.clear()
            self._queued_bytes = 0
            self._changed.notify_all()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the output as it comes, until the command has ended and all of it was read."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._queue) or self._ended)
                if not self._queue:
                    return
                chunk = self._queue.popleft()
                self._queued_bytes -= len(chunk.data)
                self._changed.notify_all()
            yield chunk

    def blocking(self, loop: asyncio.AbstractEventLoop) -> BlockingCommandIO:
        """Return the twin for a plain ``def`` execute, which runs in a thread."""
        return BlockingCommandIO(self, loop)


class BlockingCommandIO:
    """`sojourn.CommandIO` for a plain ``def`` hook: the same names, calls that block. Used from the hook's thread only."""

    def __init__(self, live: LiveIO, loop: asyncio.AbstractEventLoop) -> None:
        self._live = live
        self._loop = loop
        self.stop = BlockingStop(live.stop)

    @property
    def stdin(self) -> Iterator[bytes] | None:
        """What to feed to the command, or None."""
        source = self._live.stdin
        return None if source is None else self._pieces(source)

    def _pieces(self, source: AsyncIterator[bytes]) -> Iterator[bytes]:
        async def next_piece() -> bytes | None:
            return await anext(source, None)

        while (piece := asyncio.run_coroutine_threadsafe(next_piece(), self._loop).result()) is not None:
            yield piece

    def write(self, stream: Stream, data: bytes) -> None:
        """Pass output on; returns when there is room for more."""
        asyncio.run_coroutine_threadsafe(self._live.write(stream, data), self._loop).result()


class BlockingStop:
    """`sojourn.StopSignal` for a thread."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._set = threading.Event()
        stop.on_set(self._set.set)

    @property
    def reason(self) -> StopReason | None:
        """Why, once it is set; None before."""
        return self._stop.reason

    def is_set(self) -> bool:
        """Whether the command has to end now."""
        return self._set.is_set()

    def wait(self, timeout_seconds: float | None = None) -> StopReason | None:
        """Wait until it is set or the time is over; give the reason, or None."""
        self._set.wait(timeout_seconds)
        return self._stop.reason


class CommandStdin:
    """The writing end of a streamed command's stdin.

    Args:
        limit_bytes: how much may wait for a command that does not read.
    """

    def __init__(self, limit_bytes: int = QUEUE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Condition()

    async def write(self, data: bytes) -> None:
        """Feed ``data``; wait while the command is behind. After the command's end it is dropped.

        Raises:
            ValueError: it was closed before.
        """
        async with self._changed:
            if self._closed:
                raise ValueError("stdin is closed")
            await self._changed.wait_for(lambda: self._bytes < self._limit_bytes or self._closed)
            if not self._closed:
                self._pieces.append(data)
                self._bytes += len(data)
                self._changed.notify_all()

    async def close(self) -> None:
        """No more input: the command sees the end of its stdin. May be called twice."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what was written, until it is closed. For the driver's side."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._pieces) or self._closed)
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
                self._bytes -= len(piece)
                self._changed.notify_all()
            yield piece


def stdin_source(stdin: Stdin) -> AsyncIterator[bytes] | None:
    """Return what a driver reads stdin from."""
    if stdin is None:
        return None
    if isinstance(stdin, str):
        stdin = stdin.encode("utf-8", "surrogateescape")
    if isinstance(stdin, bytes):
        return _sliced(stdin)
    return stdin.__aiter__()


async def _sliced(data: bytes) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), STDIN_PIECE_BYTES):
        yield bytes(view[start : start + STDIN_PIECE_BYTES])
