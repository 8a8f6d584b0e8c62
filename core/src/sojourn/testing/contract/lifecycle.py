"""Clauses about acquire, realize, target and connection: the same question has the same answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from sojourn import wire
from sojourn.errors import Conflict, InvalidArgument, Unsupported
from sojourn.models import AcquireResult, ConnectionRequest, Disposition, Transfer
from sojourn.resolvers import Redactor
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["LifecycleClauses"]

MAX_HANDLE_BYTES = 16 * 1024
TRANSFERS: tuple[Transfer, ...] = ("copy", "in_place")


class LifecycleClauses(ContractBase):
    """A resource is made once and is then found."""

    @clause(Level.L1)
    async def test_acquire_is_idempotent(self, kit: Kit) -> None:
        """Ten acquires of one resource id give the same handle, and one resource."""
        async with kit.place() as place:
            first = place.result
            for _ in range(10):
                again = await place.acquire()
                assert first is not None
                assert (again.handle, again.provider_lease_id) == (first.handle, first.provider_lease_id)
            if kit.driver.has("inventory"):
                assert [item.resource_id for item in await kit.inventory()] == [place.resource_id]

    @clause(Level.L1)
    async def test_acquire_is_idempotent_eight_at_once(self, kit: Kit) -> None:
        """Eight acquires of one resource id at the same time all succeed, and make one resource."""
        place = kit.unacquired()
        results: list[AcquireResult] = await asyncio.gather(*(place.acquire() for _ in range(8)))
        assert len({json.dumps(result.handle, sort_keys=True) for result in results}) == 1
        if kit.driver.has("inventory"):
            assert [item.resource_id for item in await kit.inventory()] == [place.resource_id]
        await place.release()

    @clause(Level.L1)
    async def test_another_spec_is_a_conflict(self, kit: Kit) -> None:
        """Acquire of an existing resource id with another spec raises `Conflict` and leaves the resource as it was."""
        async with kit.place() as place:
            with pytest.raises(Conflict):
                await place.acquire(spec="spec-2")
            await place.acquire(spec="spec-1")
            assert (await place.run(kit.programs.exit(0))).ok

    @clause(Level.L1)
    async def test_resource_ids_of_any_length(self, kit: Kit) -> None:
        """A resource id may have any length from 1 to 63 characters."""
        for length in (1, 2, 63):
            async with kit.place(resource_id=kit.new_id(length)) as place:
                assert (await place.run(kit.programs.exit(0))).ok

    @clause(Level.L1)
    async def test_the_handle_is_small_json(self, kit: Kit) -> None:
        """A handle is a JSON object of at most 16 KiB."""
        async with kit.place() as place:
            assert place.result is not None
            assert len(json.dumps(wire.dump(place.result)["handle"]).encode()) <= MAX_HANDLE_BYTES

    @clause(Level.L5)
    async def test_no_secret_in_what_is_stored(self, kit: Kit) -> None:
        """The values of the config's secrets are in no handle, metadata, provider lease id or target."""
        redactor = Redactor.of(await kit.config())
        async with kit.place() as place:
            shown = json.dumps([wire.dump(place.result), wire.dump(await place.target())])
            assert not redactor.finds(shown)

    @clause(Level.L1)
    async def test_a_released_id_can_be_acquired_again(self, kit: Kit) -> None:
        """After a destroy the same resource id, with another spec, makes a new resource."""
        async with kit.place() as place:
            await place.release()
            await place.acquire(spec="spec-2")
            await place.realize()
            assert (await place.run(kit.programs.exit(0))).ok

    @clause(Level.L1)
    async def test_closing_is_no_end(self, kit: Kit) -> None:
        """After `close`, called twice, the driver object can be used again, and a resource is still there."""
        async with kit.place() as place:
            for _ in range(2):
                await kit.behind_border(kit.driver.loaded.implementation).close()
            await place.acquire()
            assert (await place.run(kit.programs.exit(0))).ok

    # -- target -------------------------------------------------------------------------------------------------------

    @clause(Level.L1)
    async def test_target_is_pure(self, kit: Kit) -> None:
        """`target` gives equal answers to equal questions, of the transport that `driver_info` says."""
        async with kit.place() as place:
            answers = [await place.target() for _ in range(3)]
            assert answers[1:] == answers[:-1]
            assert answers[0].transport == kit.driver.info.transport

    @clause(Level.L1)
    async def test_target_before_realize(self, kit: Kit) -> None:
        """`target` answers before the workspace is realized, with no cwd, and with the realized one afterwards."""
        async with kit.place(realized=False) as place:
            assert (await place.target()).cwd is None
            await place.realize()
            assert (await place.target()).cwd == place.cwd

    # -- realize ------------------------------------------------------------------------------------------------------

    @clause(Level.L1)
    async def test_realize_twice_gives_the_same_root(self, kit: Kit) -> None:
        """Realize gives an absolute root, and the same one when it is called again."""
        async with kit.place(realized=False) as place:
            roots = [await place.realize() for _ in range(3)]
            assert len(set(roots)) == 1
            assert roots[0] is None or roots[0].startswith("/")

    @clause(Level.L1, "keeps_files", "hook:realize")
    async def test_realize_keeps_files_unless_asked_to_clean(self, kit: Kit) -> None:
        """Realize leaves the root as it is, and empties it when the request says clean."""
        if kit.transfer != "copy":
            kit.undeclared("transfer copy")
        async with kit.place() as place:
            path = f"{place.cwd}/left-over"
            await place.ready(kit.programs.append(path, "x"))
            await place.realize()
            assert (await place.run(kit.programs.read(path))).ok
            await place.realize(clean=True)
            assert not (await place.run(kit.programs.read(path))).ok

    @clause(Level.L1, "hook:realize")
    async def test_realize_refuses_what_is_not_there(self, kit: Kit) -> None:
        """Realize of a local path that does not exist raises `InvalidArgument`, of a transfer not offered `Unsupported`."""
        async with kit.place() as place:
            for transfer in TRANSFERS:
                offered = transfer in kit.driver.info.transfers
                if offered and transfer == "copy":
                    continue
                with pytest.raises(InvalidArgument if offered else Unsupported):
                    await place.realize(transfer=transfer, local_path=str(kit.folder / "missing"))

    # -- connection ---------------------------------------------------------------------------------------------------

    @clause(Level.L1, "hook:connection")
    async def test_connection_gives_a_command(self, kit: Kit) -> None:
        """`connection` gives a command to paste, without secrets."""
        redactor = Redactor.of(await kit.config())
        async with kit.place() as place:
            request = ConnectionRequest(**await place.fields(), cwd=place.cwd)
            info = await kit.driver.connection(await place.sent(request))
            assert info.command
            assert not redactor.finds(json.dumps(wire.dump(info)))

    @clause(Level.L1)
    async def test_keep_leaves_it_usable(self, kit: Kit) -> None:
        """A release that keeps or stops says that the resource is not gone, and a destroy afterwards that it is."""
        for disposition in (Disposition.KEEP, Disposition.STOP):
            async with kit.place() as place:
                if not kit.driver.has("resume"):
                    kit.undeclared("hook:resume")
                assert (await place.release(disposition)).state != "gone"
