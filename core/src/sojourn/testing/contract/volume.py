"""Clauses about much of everything: flat memory, no descriptors lost, no slowing down."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import MIB, ContractBase
from sojourn.testing.kit import Kit
from sojourn.testing.leaks import DESCRIPTORS_ALLOWED, open_descriptors

__all__ = ["VolumeClauses"]

GROWTH_BYTES = 32 * MIB
PIECE_BYTES = 64 * 1024


async def _pieces(total: int) -> AsyncIterator[bytes]:
    piece = bytes(PIECE_BYTES)
    for _ in range(total // PIECE_BYTES):
        yield piece


class VolumeClauses(ContractBase):
    """Size is no excuse."""

    @clause(Level.L6)
    async def test_much_output(self, kit: Kit) -> None:
        """50 MiB of output are streamed completely and byte-exactly while this process grows by less than 32 MiB."""
        async with kit.place() as place, kit.memory() as memory:
            options = {"streamed": True, "output_limit_bytes": 1024}
            async with place.running(kit.programs.flood(self.bulk_bytes), **options) as command:
                total = other = 0
                async for chunk in command.io.chunks():
                    total += len(chunk.data)
                    other += len(chunk.data) - chunk.data.count(0)
                assert (await command.task).exit_code == 0
            assert (total - other, other) == (self.bulk_bytes, len(b"first\nlast\n"))
        assert memory.grown_bytes < GROWTH_BYTES, f"grew by {memory.grown_bytes // MIB} MiB"

    @clause(Level.L6)
    async def test_much_output_that_nobody_wants(self, kit: Kit) -> None:
        """50 MiB of output over a limit of 1 MiB are counted to the byte while this process grows by less than 32 MiB."""
        async with kit.place() as place, kit.memory() as memory:
            result = (await place.run(kit.programs.flood(self.bulk_bytes), output_limit_bytes=MIB)).check()
            assert result.stdout_dropped_bytes == self.bulk_bytes + len(b"first\nlast\n") - MIB
            assert (result.stdout[:6], result.stdout[-5:]) == (b"first\n", b"last\n")
        assert memory.grown_bytes < GROWTH_BYTES, f"grew by {memory.grown_bytes // MIB} MiB"

    @clause(Level.L6)
    async def test_much_input(self, kit: Kit) -> None:
        """50 MiB of stdin reach the command while this process grows by less than 32 MiB."""
        async with kit.place() as place, kit.memory() as memory:
            result = await place.run(kit.programs.size(), stdin=_pieces(self.bulk_bytes))
            assert int(result.check().stdout) == self.bulk_bytes
        assert memory.grown_bytes < GROWTH_BYTES, f"grew by {memory.grown_bytes // MIB} MiB"

    @clause(Level.L6)
    async def test_input_comes_back(self, kit: Kit) -> None:
        """8 MiB of stdin of all byte values come back from the command as they went in."""
        data = bytes(range(256)) * (8 * MIB // 256)
        async with kit.place() as place:
            result = await place.run(kit.programs.cat(), stdin=data, output_limit_bytes=len(data))
            assert result.check().stdout == data

    @clause(Level.L6)
    async def test_many_commands(self, kit: Kit) -> None:
        """A hundred commands in one resource leave no descriptor open that the first ten did not need."""
        async with kit.place() as place:
            for _ in range(10):
                await place.run(kit.programs.exit(0))
            before = open_descriptors()
            for _ in range(90):
                assert (await place.run(kit.programs.exit(0))).ok
            after = open_descriptors()
            assert before is None or after is None or after - before <= DESCRIPTORS_ALLOWED

    @clause(Level.L6)
    async def test_many_resources(self, kit: Kit) -> None:
        """Twenty resources, each used and destroyed, leave nothing behind."""
        for _ in range(20):
            async with kit.place() as place:
                assert (await place.run(kit.programs.exit(0))).ok
