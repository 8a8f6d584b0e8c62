"""Clauses about release: as often as one likes, by whomever, with or without a handle, and never a lie."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import DriverError, Gone, Unavailable
from sojourn.models import ReleaseReceipt, ResourceState
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit
from sojourn.testing.leaks import until
from sojourn.testing.places import Place

__all__ = ["ReleaseClauses"]


class ReleaseClauses(ContractBase):
    """Releasing twice is fine; releasing what is gone is success."""

    @clause(Level.L1)
    async def test_release_is_idempotent(self, kit: Kit) -> None:
        """Ten releases of one resource all say that it is gone."""
        async with kit.place() as place:
            for _ in range(10):
                assert (await place.release()).state is ResourceState.GONE

    @clause(Level.L1)
    async def test_release_eight_at_once(self, kit: Kit) -> None:
        """Of eight releases at the same time each says gone or asks to be repeated, and one more says gone."""
        async with kit.place() as place:
            answers = await asyncio.gather(*(place.release() for _ in range(8)), return_exceptions=True)
            assert all(_gone(answer) or _again(answer) for answer in answers), answers
            assert (await place.release()).state is ResourceState.GONE

    @clause(Level.L1)
    async def test_release_of_an_unknown_id(self, kit: Kit) -> None:
        """A release of a resource that never existed says gone."""
        assert (await kit.unacquired().release()).state is ResourceState.GONE

    @clause(Level.L1)
    async def test_release_without_a_handle(self, kit: Kit) -> None:
        """A release works from config and resource id when the handle was lost."""
        async with kit.place() as place:
            assert (await place.release(handle=None)).state is ResourceState.GONE
            await _is_gone(kit, place)

    @clause(Level.L1, "door:destroy_resource")
    async def test_release_after_it_vanished(self, kit: Kit) -> None:
        """A release of a resource that somebody else removed says gone, with its handle and without."""
        async with kit.place() as place:
            kit.door.destroy_resource(place.resource_id)
            assert (await place.release()).state is ResourceState.GONE
            assert (await place.release(handle=None)).state is ResourceState.GONE

    @clause(Level.L1)
    async def test_nothing_runs_where_nothing_is(self, kit: Kit) -> None:
        """A command in a released resource raises `Gone` or `Unavailable`, and never succeeds."""
        async with kit.place() as place:
            await place.release()
            with pytest.raises((Gone, Unavailable)):
                await place.run(kit.programs.exit(0))

    @clause(Level.L2, "door:destroy_resource")
    async def test_nothing_runs_where_it_vanished(self, kit: Kit) -> None:
        """A command in a resource that somebody else removed raises `Gone` or `Unavailable`, or is lost; it never succeeds."""
        async with kit.place() as place:
            kit.door.destroy_resource(place.resource_id)
            try:
                result = await place.run(kit.programs.exit(0))
            except (Gone, Unavailable):
                pass
            else:
                assert result.exit_code is None, f"it {result.outcome} with {result.exit_code}"
            await place.release()

    @clause(Level.L2)
    async def test_release_after_a_running_command(self, kit: Kit) -> None:
        """When a running command was told to end, a release right after it says gone, and the command did not succeed."""
        async with kit.place() as place, place.running(kit.programs.sleep(60), streamed=True) as command:
            await command.until_said(b"ready")
            with kit.within(10):
                result = await command.stop()
                receipt = await place.release()
            assert receipt.state is ResourceState.GONE
            assert not result.ok

    @clause(Level.L2, "door:processes")
    async def test_a_daemon_does_not_survive_the_release(self, kit: Kit) -> None:
        """A daemon that a command left behind is gone when the release says so."""
        async with kit.place() as place:
            await place.ready(kit.programs.daemon(), {"CONTRACT_MARK": place.resource_id + "-mark"})
            assert until(lambda: [] if kit.door.processes(place.resource_id + "-mark") else ["none yet"]) == []
            with kit.within(15):
                receipt = await place.release()
            assert receipt.state is ResourceState.GONE
            assert kit.door.processes(place.resource_id + "-mark") == []


def _gone(answer: object) -> bool:
    return isinstance(answer, ReleaseReceipt) and answer.state is ResourceState.GONE


def _again(answer: object) -> bool:
    return isinstance(answer, DriverError) and answer.retryable


async def _is_gone(kit: Kit, place: Place) -> None:
    """See by every way there is that a resource does not exist."""
    if kit.driver.has("inventory"):
        assert await kit.inventory() == []
    if kit.door.offers("resource_exists"):
        assert not kit.door.resource_exists(place.resource_id)
