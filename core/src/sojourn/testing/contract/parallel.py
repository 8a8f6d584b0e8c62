"""Clauses about several commands in one resource at once."""

from __future__ import annotations

import asyncio
import time

from sojourn.models import Outcome
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["ParallelClauses"]


class ParallelClauses(ContractBase):
    """Commands do not know of each other."""

    @clause(Level.L2, "parallel")
    async def test_ten_at_once_do_not_mix(self, kit: Kit) -> None:
        """Ten commands at once each get their own output and exit status."""
        async with kit.place() as place:
            runs = (place.run(kit.programs.say(f"out {n}\n" * 200, f"err {n}\n" * 200)) for n in range(10))
            for number, result in enumerate(await asyncio.gather(*runs)):
                assert result.exit_code == 0
                assert result.stdout == f"out {number}\n".encode() * 200
                assert result.stderr == f"err {number}\n".encode() * 200

    @clause(Level.L2, "parallel")
    async def test_ten_at_once_take_the_time_of_one(self, kit: Kit) -> None:
        """Ten commands that wait for 0.5 s are through in less than half of the time that they take one after the other."""
        async with kit.place() as place:
            await place.run(kit.programs.exit(0))
            began = time.monotonic()
            results = await asyncio.gather(*(place.run(kit.programs.sleep(0.5)) for _ in range(10)))
            assert time.monotonic() - began < 2.5
            assert all(result.ok for result in results)

    @clause(Level.L2, "parallel")
    async def test_one_time_out_leaves_the_others_alone(self, kit: Kit) -> None:
        """A command that runs into its time limit does not disturb those that run beside it."""
        async with kit.place() as place:
            late = place.run(kit.programs.tree(), timeout_seconds=0.5, grace_seconds=0.3)
            others = [place.run(kit.programs.sleep(1.5)) for _ in range(4)]
            timed_out, *results = await asyncio.gather(late, *others)
            assert timed_out.outcome is Outcome.TIMED_OUT
            assert [(result.exit_code, result.stdout) for result in results] == [(0, b"ready\n")] * 4

    @clause(Level.L2, "parallel", "keeps_files")
    async def test_one_exec_id_at_once_is_one_run(self, kit: Kit) -> None:
        """The same exec id sent eight times at once runs the command once."""
        async with kit.place() as place:
            path = f"{place.cwd}/ledger"
            runs = (place.run(kit.programs.append(path, "ran"), exec_id="exec-of-eight") for _ in range(8))
            await asyncio.gather(*runs, return_exceptions=True)
            assert (await place.run(kit.programs.read(path))).stdout == b"ran\n"
