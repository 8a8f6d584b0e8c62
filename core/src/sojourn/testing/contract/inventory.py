"""Clauses about the inventory: all that is ours, nothing that is another's, from the first moment."""

from __future__ import annotations

from sojourn.errors import DriverError
from sojourn.models import Disposition
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["InventoryClauses"]


class InventoryClauses(ContractBase):
    """A sweep can trust the inventory."""

    @clause(Level.L1, "hook:inventory")
    async def test_a_resource_is_listed_from_its_first_moment(self, kit: Kit) -> None:
        """Right after acquire the inventory lists the resource with its id and the epoch in which it was created."""
        async with kit.place(realized=False, epoch=3) as place:
            items = await kit.inventory()
            assert [(item.resource_id, item.created_epoch) for item in items] == [(place.resource_id, 3)]

    @clause(Level.L1, "hook:inventory")
    async def test_it_is_not_listed_when_it_is_gone(self, kit: Kit) -> None:
        """Right after a destroy the inventory is empty."""
        async with kit.place() as place:
            await place.release()
            assert await kit.inventory() == []

    @clause(Level.L1, "hook:inventory")
    async def test_the_inventory_is_of_one_installation(self, kit: Kit) -> None:
        """The inventory lists the resources of the installation that asks and of no other."""
        foreign = f"{kit.installation_id}-other"
        async with kit.place() as ours, kit.place(installation_id=foreign) as theirs:
            assert [item.resource_id for item in await kit.inventory()] == [ours.resource_id]
            assert [item.resource_id for item in await kit.inventory(foreign)] == [theirs.resource_id]
        assert await kit.inventory(foreign) == []

    @clause(Level.L1, "hook:inventory")
    async def test_another_installation_cannot_destroy_it(self, kit: Kit) -> None:
        """A release of a resource id by an installation that does not own it leaves the resource alone."""
        async with kit.place() as place:
            try:
                await place.release(installation_id=f"{kit.installation_id}-other")
            except DriverError:
                pass  # refusing is as good as not finding it
            assert [item.resource_id for item in await kit.inventory()] == [place.resource_id]
            assert (await place.run(kit.programs.exit(0))).ok

    @clause(Level.L1, "hook:inventory", "hook:resume")
    async def test_a_kept_resource_is_listed(self, kit: Kit) -> None:
        """A kept or stopped resource is in the inventory, with the epoch in which it was created also after a resume."""
        for disposition in (Disposition.KEEP, Disposition.STOP):
            async with kit.place() as place:
                await place.release(disposition)
                assert [item.resource_id for item in await kit.inventory()] == [place.resource_id]
                await place.resume()
                assert [item.created_epoch for item in await kit.inventory()] == [1]
