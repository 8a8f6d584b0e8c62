"""Clauses about another process: what one left, the next one finds, uses and ends."""

from __future__ import annotations

import pytest

from sojourn.errors import DriverError, Gone, Unavailable
from sojourn.models import Disposition, ResourceState
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["RecoveryClauses"]


class RecoveryClauses(ContractBase):
    """A crash of the holder loses no resource."""

    @clause(Level.L4, "survives_restart")
    async def test_another_process_releases_it(self, kit: Kit) -> None:
        """A driver that never saw the resource releases it from config and resource id alone."""
        async with kit.place() as place:
            receipt = await place.release(driver=kit.another_driver(), handle=None)
            assert receipt.state is ResourceState.GONE
            if kit.driver.has("inventory"):
                assert await kit.inventory() == []

    @clause(Level.L4, "survives_restart")
    async def test_another_process_lists_it(self, kit: Kit) -> None:
        """A driver that never saw the resource has it in its inventory."""
        kit.need("hook:inventory")
        async with kit.place() as place:
            assert [item.resource_id for item in await kit.inventory(driver=kit.another_driver())] == [
                place.resource_id
            ]

    @clause(Level.L4, "survives_restart")
    async def test_another_process_executes_in_it(self, kit: Kit) -> None:
        """A driver that never saw the resource runs commands in it, from the stored handle."""
        async with kit.place() as place:
            assert (await place.run(kit.programs.exit(3), driver=kit.another_driver())).exit_code == 3

    @clause(Level.L4, "survives_restart", "keeps_files")
    async def test_another_process_acquires_the_same(self, kit: Kit) -> None:
        """An acquire repeated by another process after a crash gives the same resource, with what is in it."""
        async with kit.place() as place:
            path = f"{place.cwd}/kept"
            await place.ready(kit.programs.append(path, "kept"))
            place.driver = kit.another_driver()
            await place.acquire()
            assert (await place.run(kit.programs.read(path))).stdout == b"kept\n"

    @clause(Level.L4, "survives_restart", "door:processes")
    async def test_another_process_ends_what_runs(self, kit: Kit) -> None:
        """A release by another process ends a command that still runs, and the command is not reported as a success."""
        async with kit.place() as place:
            mark = {"CONTRACT_MARK": f"{place.resource_id}-mark"}
            async with place.running(kit.programs.sleep(60), streamed=True, env=mark) as command:
                await command.until_said(b"ready")
                with kit.within(15):
                    assert (await place.release(driver=kit.another_driver(), handle=None)).state is ResourceState.GONE
                assert kit.door.processes(mark["CONTRACT_MARK"]) == []
                with kit.within(10):
                    try:
                        assert not (await command.task).ok
                    except DriverError:
                        pass  # not knowing is as good as a failure

    @clause(Level.L4, "hook:resume")
    async def test_a_kept_resource_is_resumed(self, kit: Kit) -> None:
        """A resource that was kept, and one that was stopped, is taken up again with the files that were in it."""
        for disposition in (Disposition.KEEP, Disposition.STOP):
            async with kit.place() as place:
                path = f"{place.cwd}/kept"
                if kit.capabilities.keeps_files:
                    await place.ready(kit.programs.append(path, "kept"))
                await place.release(disposition)
                await place.resume()
                await place.realize()
                assert (await place.run(kit.programs.exit(0))).ok
                if kit.capabilities.keeps_files:
                    assert (await place.run(kit.programs.read(path))).stdout == b"kept\n"

    @clause(Level.L4, "hook:resume")
    async def test_what_is_gone_is_not_resumed(self, kit: Kit) -> None:
        """Resume of a destroyed resource raises `Gone`, or `Unavailable` when that cannot be proven."""
        async with kit.place() as place:
            await place.release()
            with pytest.raises((Gone, Unavailable)):
                await place.resume()

    @clause(Level.L4, "info:fencing")
    async def test_a_former_holder_is_refused(self, kit: Kit) -> None:
        """Once a later epoch has acquired the resource, a command and a release of an earlier one raise, and change nothing."""
        async with kit.place() as place:
            stale = kit.unacquired(resource_id=place.resource_id, handle=place.handle, cwd=place.cwd)
            place.epoch += 1
            await place.acquire()
            with pytest.raises(DriverError):
                await stale.run(kit.programs.exit(0))
            with pytest.raises(DriverError):
                await stale.release()
            assert (await place.run(kit.programs.exit(0))).ok
