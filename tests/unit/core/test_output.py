"""What is kept of a command's output, and the streams on the way to it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.models import StopReason
from sojourn.output import OutputBuffer
from sojourn.streams import QUEUE_LIMIT_BYTES, CommandStdin, LiveIO, Stop, stdin_source


@given(pieces=st.lists(st.binary(max_size=40), max_size=30), limit=st.integers(0, 120))
def test_the_first_and_the_last_half_are_kept_and_the_rest_is_counted(pieces: list[bytes], limit: int) -> None:
    """However the output is cut into pieces."""
    buffer = OutputBuffer(limit)
    for piece in pieces:
        buffer.add(piece)
    whole = b"".join(pieces)
    kept = buffer.value()
    assert len(kept) + buffer.dropped_bytes == len(whole)
    assert len(kept) == min(limit, len(whole))
    if len(whole) <= limit:
        assert kept == whole
    else:
        tail = limit // 2
        assert kept == whole[: limit - tail] + (whole[-tail:] if tail else b"")


def test_memory_stays_flat_with_many_small_pieces() -> None:
    buffer = OutputBuffer(1000)
    for _ in range(50_000):
        buffer.add(b"xy")
    assert len(buffer._tail) <= 501
    assert (len(buffer.value()), buffer.dropped_bytes) == (1000, 99_000)


# -- the live side ----------------------------------------------------------------------------------------------------


async def test_a_slow_reader_holds_the_writer_back() -> None:
    live = LiveIO(None, 10, streamed=True)
    await live.write("stdout", bytes(QUEUE_LIMIT_BYTES))
    blocked = asyncio.create_task(live.write("stderr", b"more"))
    await asyncio.sleep(0.02)
    assert not blocked.done()
    chunks = live.chunks()
    assert len((await anext(chunks)).data) == QUEUE_LIMIT_BYTES
    await asyncio.wait_for(blocked, 5)
    chunk = await anext(chunks)
    assert (chunk.stream, chunk.data) == ("stderr", b"more")
    await live.end()
    assert [chunk async for chunk in chunks] == []


async def test_without_a_reader_nothing_waits_and_nothing_is_queued() -> None:
    live = LiveIO(None, 10)
    for _ in range(4):
        await asyncio.wait_for(live.write("stdout", bytes(QUEUE_LIMIT_BYTES)), 5)
    assert live.kept["stdout"].dropped_bytes == 4 * QUEUE_LIMIT_BYTES - 10


async def test_discard_lets_a_waiting_writer_go() -> None:
    live = LiveIO(None, 10, streamed=True)
    await live.write("stdout", bytes(QUEUE_LIMIT_BYTES))
    blocked = asyncio.create_task(live.write("stdout", b"more"))
    await asyncio.sleep(0)
    await live.discard()
    await asyncio.wait_for(blocked, 5)


async def test_the_end_lets_a_waiting_writer_and_a_waiting_reader_go_and_later_output_belongs_to_nobody() -> None:
    live = LiveIO(None, 10, streamed=True)

    async def read() -> list[Any]:
        return [chunk async for chunk in live.chunks()]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    await live.end()
    assert await asyncio.wait_for(reader, 5) == []
    await asyncio.wait_for(live.write("stdout", b"late"), 5)
    assert live.kept["stdout"].value() == b""


async def test_what_was_queued_before_the_end_is_still_read() -> None:
    live = LiveIO(None, 10, streamed=True)
    await live.write("stdout", b"a")
    await live.end()
    assert [chunk.data async for chunk in live.chunks()] == [b"a"]


async def test_the_first_reason_to_stop_stays() -> None:
    stop = Stop()
    called: list[int] = []
    stop.on_set(lambda: called.append(1))
    assert (stop.is_set(), stop.reason) == (False, None)
    stop.set(StopReason.TIMEOUT)
    stop.set(StopReason.CANCELLED)
    stop.on_set(lambda: called.append(2))
    assert await stop.wait() is StopReason.TIMEOUT
    assert called == [1, 2]


async def test_the_blocking_twin_serves_a_thread() -> None:
    live = LiveIO(stdin_source(b"fed"), 100)
    twin = live.blocking(asyncio.get_running_loop())
    seen: list[Any] = []

    def work() -> None:
        seen.append(b"".join(twin.stdin or ()))
        twin.write("stdout", b"out")
        seen.append(twin.stop.wait(0.01))
        seen.append(twin.stop.wait(10))

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.sleep(0.1)
    live.stop.set(StopReason.CANCELLED)
    await asyncio.to_thread(thread.join)
    assert seen == [b"fed", None, StopReason.CANCELLED]
    assert live.kept["stdout"].value() == b"out"


# -- stdin ------------------------------------------------------------------------------------------------------------


async def test_a_command_that_does_not_read_holds_the_feeder_back() -> None:
    stdin = CommandStdin(limit_bytes=4)
    await stdin.write(b"1234")
    blocked = asyncio.create_task(stdin.write(b"5"))
    await asyncio.sleep(0.02)
    assert not blocked.done()
    pieces = stdin.pieces()
    assert await anext(pieces) == b"1234"
    await asyncio.wait_for(blocked, 5)
    await stdin.close()
    await stdin.close()
    assert [piece async for piece in pieces] == [b"5"]
    with pytest.raises(ValueError, match="closed"):
        await stdin.write(b"6")


async def test_closing_lets_a_waiting_feeder_go() -> None:
    stdin = CommandStdin(limit_bytes=1)
    await stdin.write(b"1")
    blocked = asyncio.create_task(stdin.write(b"2"))
    await asyncio.sleep(0)
    await stdin.close()
    await asyncio.wait_for(blocked, 5)


async def test_bytes_and_text_become_pieces() -> None:
    assert stdin_source(None) is None
    for given_value, wanted in ((b"x" * 200_000, b"x" * 200_000), ("\u20ac\udcff", b"\xe2\x82\xac\xff"), (b"", b"")):
        source = stdin_source(given_value)
        assert source is not None
        pieces = [piece async for piece in source]
        assert b"".join(pieces) == wanted
        assert all(len(piece) <= 64 * 1024 for piece in pieces)
