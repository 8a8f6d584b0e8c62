"""Clauses about stdin, stdout and stderr: apart, byte-exact, while the command runs, and held back when nobody reads."""

from __future__ import annotations

import asyncio

from sojourn.streams import CommandStdin
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import MIB, ContractBase
from sojourn.testing.kit import Kit

__all__ = ["StreamsClauses"]

BYTES = bytes(range(256)) * 2 + b"\xff\xfe\xc3\x28"
HELD_BACK_BYTES = 16 * MIB
"""What a command may have written though nobody reads: pipes, sockets and queues on the way hold some."""


class StreamsClauses(ContractBase):
    """Bytes go through as they are."""

    @clause(Level.L2)
    async def test_streams_stay_apart(self, kit: Kit) -> None:
        """What was written to stdout is in stdout, what was written to stderr in stderr, exactly."""
        async with kit.place() as place:
            result = (await place.run(kit.programs.say("out\n", "err\n"))).check()
            assert (result.stdout, result.stderr, result.output_complete) == (b"out\n", b"err\n", True)

    @clause(Level.L2)
    async def test_order_within_a_stream(self, kit: Kit) -> None:
        """Each stream keeps its order, also when both are written at once."""
        wanted = b"".join(f"{number}\n".encode() for number in range(1, 2001))
        async with kit.place() as place:
            result = (await place.run(kit.programs.count(2000))).check()
            assert (result.stdout, result.stderr) == (wanted, wanted)

    @clause(Level.L2)
    async def test_binary_output(self, kit: Kit) -> None:
        """Every byte value, NUL and invalid UTF-8 included, comes through."""
        async with kit.place() as place:
            assert (await place.run(kit.programs.binary(BYTES))).check().stdout == BYTES

    @clause(Level.L2)
    async def test_output_without_a_newline(self, kit: Kit) -> None:
        """Output that does not end with a newline comes through, and so does none at all."""
        async with kit.place() as place:
            assert (await place.run(kit.programs.say("no newline"))).check().stdout == b"no newline"
            assert (await place.run(kit.programs.say(""))).check().stdout == b""

    @clause(Level.L2)
    async def test_stdin(self, kit: Kit) -> None:
        """Stdin that is nothing, empty, text or binary is what the command reads, to its end."""
        async with kit.place() as place:
            for given, wanted in ((None, b""), (b"", b""), ("text ü\n", "text ü\n".encode()), (BYTES, BYTES)):
                with kit.within(15):
                    assert (await place.run(kit.programs.cat(), stdin=given)).check().stdout == wanted

    @clause(Level.L2)
    async def test_unread_stdin(self, kit: Kit) -> None:
        """A command that does not read its stdin ends as usual, however much there is of it."""
        async with kit.place() as place:
            with kit.within(15):
                assert (await place.run(kit.programs.exit(3), stdin=b"x" * MIB)).exit_code == 3

    @clause(Level.L2)
    async def test_output_comes_while_the_command_runs(self, kit: Kit) -> None:
        """The first output is there before the command ends, and what is written to stdin later is still read."""
        stdin = CommandStdin()
        async with kit.place() as place:
            async with place.running(kit.programs.greet("hello\n"), streamed=True, stdin=stdin.pieces()) as command:
                await command.until_said(b"hello\n", 5.0 * self.patience)
                assert not command.task.done()
                await stdin.write(b"and more\n")
                await stdin.close()
                result = await command.task
            assert (result.exit_code, result.stdout) == (0, b"hello\nand more\n")

    @clause(Level.L2)
    async def test_the_middle_is_dropped(self, kit: Kit) -> None:
        """Output over the limit keeps its first and last half, the rest is counted, and the command runs to its end."""
        size = 4 * MIB
        async with kit.place() as place:
            result = (await place.run(kit.programs.flood(size), output_limit_bytes=1024)).check()
            assert (result.stdout[:6], result.stdout[-5:], len(result.stdout)) == (b"first\n", b"last\n", 1024)
            assert result.stdout_dropped_bytes == size + len(b"first\nlast\n") - 1024

    @clause(Level.L2)
    async def test_a_slow_reader_holds_the_command_back(self, kit: Kit) -> None:
        """When nobody reads the output the command waits and nothing piles up here; when it is read at last, none is missing."""
        size = max(self.bulk_bytes, 2 * HELD_BACK_BYTES)
        async with kit.place() as place, kit.memory() as memory:
            async with place.running(kit.programs.flood(size), streamed=True, output_limit_bytes=1024) as command:
                await asyncio.sleep(1.0)
                assert not command.task.done(), "the command ended though nobody read its output"
                kept = command.io.kept["stdout"]
                assert kept.dropped_bytes <= HELD_BACK_BYTES
                total = 0
                async for chunk in command.io.chunks():
                    total += len(chunk.data)
                result = await command.task
            assert result.exit_code == 0
            assert total == size + len(b"first\nlast\n")
        assert memory.grown_bytes < 2 * HELD_BACK_BYTES, f"grew by {memory.grown_bytes // MIB} MiB"

    @clause(Level.L2)
    async def test_a_background_child_does_not_hold_the_call(self, kit: Kit) -> None:
        """A command that leaves a child with its stdout open returns within 5 s with its own exit status."""
        async with kit.place() as place:
            result = await kit.soon(5, place.run(kit.programs.background(30, "late", 4)))
            assert (result.exit_code, result.stdout) == (4, b"early\n")

    @clause(Level.L2)
    async def test_late_output_is_in_no_other_result(self, kit: Kit) -> None:
        """What a background child writes after its command's end shows up in no later command's output."""
        async with kit.place() as place:
            await place.run(kit.programs.background(0.5, "late", 0))
            later = [await place.run(kit.programs.say(f"{number}")) for number in range(3)]
            later.append(await place.run(kit.programs.sleep(1.0)))
            assert [result.stdout for result in later] == [b"0", b"1", b"2", b"ready\n"]
            assert not any(result.stderr for result in later)
