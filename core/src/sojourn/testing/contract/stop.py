"""Clauses about stopping: on time, the whole tree, and said as it is."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.models import ExecuteResult, Outcome
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit
from sojourn.testing.places import Place

__all__ = ["StopClauses"]

SLACK_SECONDS = 2.0
"""A stopped command is back within its grace and this; the core gives up on it later."""


def _mark(place: Place) -> dict[str, str]:
    """Return a variable by which the processes of one command can be told from all others."""
    return {"CONTRACT_MARK": f"{place.resource_id}-mark"}


def _nothing_left(kit: Kit, place: Place) -> None:
    if kit.door.offers("processes"):
        assert kit.door.processes(_mark(place)["CONTRACT_MARK"]) == []


def _ended(result: ExecuteResult, outcome: Outcome) -> None:
    assert (result.outcome, result.exit_code) == (outcome, None), result.detail
    assert result.kill_confirmed, "it was not confirmed that the whole tree is gone"


class StopClauses(ContractBase):
    """If it is not sure that it stopped, it has not stopped."""

    @clause(Level.L2)
    async def test_time_out(self, kit: Kit) -> None:
        """A command over its time limit has outcome timed_out and no exit status, keeps what it wrote, and is back on time."""
        async with kit.place() as place:
            with kit.within(0.7 + 1.0 + SLACK_SECONDS):
                result = await place.run(kit.programs.sleep(60), timeout_seconds=0.7, env=_mark(place))
            _ended(result, Outcome.TIMED_OUT)
            assert result.stdout == b"ready\n"
            _nothing_left(kit, place)

    @clause(Level.L2)
    async def test_time_out_ends_the_tree(self, kit: Kit) -> None:
        """A time-out ends descendants in sessions of their own, orphans, those that ignore TERM and those that hold the output."""
        async with kit.place() as place:
            with kit.within(1.5 + 1.0 + SLACK_SECONDS):
                result = await place.run(kit.programs.tree(), timeout_seconds=1.5, grace_seconds=1.0, env=_mark(place))
            _ended(result, Outcome.TIMED_OUT)
            assert result.stdout == b"ready\n"
            _nothing_left(kit, place)

    @clause(Level.L2)
    async def test_a_limit_that_is_not_reached(self, kit: Kit) -> None:
        """A command that ends within its time limit is not touched by it."""
        async with kit.place() as place:
            assert (await place.run(kit.programs.exit(5), timeout_seconds=30.0)).exit_code == 5

    @clause(Level.L2)
    async def test_stop(self, kit: Kit) -> None:
        """The stop signal ends the whole tree within grace and 2 s; the outcome is cancelled, without an exit status."""
        async with kit.place() as place:
            async with place.running(kit.programs.tree(), streamed=True, env=_mark(place)) as command:
                await command.until_said(b"ready")
                with kit.within(1.0 + SLACK_SECONDS):
                    result = await command.stop()
            _ended(result, Outcome.CANCELLED)
            _nothing_left(kit, place)

    @clause(Level.L2)
    async def test_a_polite_command_gets_its_grace(self, kit: Kit) -> None:
        """A command that handles TERM has the time to end by itself, what it writes meanwhile is kept, and nobody waits longer."""
        async with kit.place() as place:
            command_line = kit.programs.polite()
            async with place.running(command_line, streamed=True, grace_seconds=15.0) as command:
                await command.until_said(b"ready")
                with kit.within(10):
                    result = await command.stop()
            _ended(result, Outcome.CANCELLED)
            assert result.stdout == b"ready\nbye\n"

    @clause(Level.L2)
    async def test_a_cancelled_caller_ends_the_tree(self, kit: Kit) -> None:
        """When the task that awaits a command is cancelled, it ends as cancelled, and only after the whole tree is gone."""
        async with kit.place() as place, place.running(kit.programs.tree(), streamed=True, env=_mark(place)) as command:
            await command.until_said(b"ready")
            command.task.cancel()
            with kit.within(1.0 + SLACK_SECONDS), pytest.raises(asyncio.CancelledError):
                await command.task
            _nothing_left(kit, place)
            assert not command.execution.doubtful

    @clause(Level.L2)
    async def test_stop_before_the_start(self, kit: Kit) -> None:
        """A command whose stop signal is set already is ended at once, and does not succeed."""
        async with kit.place() as place:
            execution = await place.execution(kit.programs.sleep(60))
            execution.io.stop.set("cancelled")  # type: ignore[arg-type]
            with kit.within(1.0 + SLACK_SECONDS):
                result = await execution.run()
            assert result.outcome is Outcome.CANCELLED

    @clause(Level.L2)
    async def test_the_place_is_usable_afterwards(self, kit: Kit) -> None:
        """After a time-out the next command in the same resource runs as if nothing had been."""
        async with kit.place() as place:
            await place.run(kit.programs.tree(), timeout_seconds=0.7, grace_seconds=0.3)
            result = await place.run(kit.programs.say("fine"))
            assert (result.exit_code, result.stdout, result.stderr) == (0, b"fine", b"")
