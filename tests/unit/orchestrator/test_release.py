"""Release: independent outcomes, nothing called released that is not proven, nothing lost that is not (behaviours 19 to 22)."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import attrs
import pytest

from sojourn.errors import ErrorCode, StoreError
from sojourn.hooks import hookimpl
from sojourn.models import Disposition, ReleaseReceipt, ReleaseRequest, ResourceState
from sojourn.realization_records import Overlay
from sojourn.reaping import SweepsOff
from sojourn.store import Store
from sojourn.testing import FakeDriver, Fault

RETRIED_LATER = [
    "InvalidConfig",
    "InvalidArgument",
    "Unsupported",
    "PermissionDenied",
    "HostKeyMismatch",
    "Conflict",
    "Busy",
    "Unavailable",
    "ResourceExhausted",
    "Refused",
    "OutcomeUnknown",
    "DriverBug",
    "RuntimeError",
    "MemoryError",
    "SystemExit",
    "CancelledError",
    "BaseException",
]


def failing(error: str, **more: Any) -> Fault:
    return Fault(hook="release", action="raise", error=error, message="the inner message", **more)


# -- failures of the driver -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", RETRIED_LATER)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_release_that_fails_waits_for_clean_up_and_a_sweep_ends_it(lab: Any, error: str, when: Any) -> None:
    """(behaviour 22; table of driver errors: release) never called released; one call, the error shown, then proven."""
    driver = lab.chaos(failing(error, calls=(1,), when=when))
    async with lab.ready(driver) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run())
        row = lab.lease()
        assert (row["status"], row["outcome"], row["cleanup_status"]) == ("pending_cleanup", "released", "pending")
        assert error in row["last_error"]
        assert row["next_try_at"] is not None
        assert report.released == ()
        ((lease_id, trouble),) = [(error.lease_id, error.error) for error in report.errors]
        assert lease_id == lease.id
        assert (trouble.code, trouble.retryable) == (ErrorCode.LEASE_RELEASE_FAILED, True)
        # A CancelledError that is not ours says nothing.
        assert error == "CancelledError" or "the inner message" in str(trouble)
        assert driver.count("release") == 1
        swept = await orchestrator.reap(force=True)
        assert [item.result for item in swept.items] == ["gone"]
    row = lab.lease()
    assert (row["status"], row["cleanup_status"], row["last_error"]) == ("released", "success", None)
    assert lab.resources() == []


async def test_gone_at_release_is_success(lab: Any) -> None:
    """(table of driver errors: Gone at release)"""
    async with lab.ready(lab.chaos(failing("Gone", when="after"))) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run())
    assert [lease.status for lease in report.released] == ["released"]
    assert lab.lease()["cleanup_status"] == "success"


async def test_a_resource_that_vanished_is_released(lab: Any) -> None:
    """(behaviour 19) absence is success."""
    async with lab.ready() as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        lab.world.remove(lease.resource_id)
        report = await orchestrator.release_for_run(lab.run())
    assert [lease.status for lease in report.released] == ["released"]


@pytest.mark.parametrize("state", [ResourceState.RUNNING, ResourceState.STOPPED])
async def test_a_driver_that_keeps_what_it_was_to_destroy_did_not_release(lab: Any, state: ResourceState) -> None:
    """(behaviour 22)"""

    class Keeping(FakeDriver):
        @hookimpl
        async def release(self, request: ReleaseRequest) -> ReleaseReceipt:
            if keep:
                return ReleaseReceipt(state=state, handle=request.handle)
            return await FakeDriver.release(self, request)

    keep = True
    async with lab.ready(Keeping(world=lab.world)) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run())
        assert len(report.errors) == 1
        assert lab.lease()["status"] == "pending_cleanup"
        assert f"says it is {state}" in lab.lease()["last_error"]
        keep = False
        await orchestrator.reap(force=True)
    assert lab.lease()["status"] == "released"


@pytest.mark.parametrize("garbage", ["none", "wrong_type", "nan_handle"])
async def test_an_impossible_receipt_proves_nothing(lab: Any, garbage: Any) -> None:
    """(behaviour 22)"""
    driver = lab.chaos(Fault(hook="release", action="garbage", garbage=garbage, calls=(1,)))
    async with lab.ready(driver) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run())
        assert len(report.errors) == 1
        assert lab.lease()["status"] == "pending_cleanup"
        assert "DriverBug" in lab.lease()["last_error"]


class BlockingRelease(FakeDriver):
    @hookimpl
    def release(self, request: ReleaseRequest) -> ReleaseReceipt:
        return asyncio.run(FakeDriver.release(self, request))


@pytest.mark.parametrize("action", ["hang", "hang_ignoring_cancel", "block"])
async def test_a_hanging_release_meets_its_deadline_while_others_are_served(lab: Any, action: Any) -> None:
    """(behaviour 22) async, ignoring its cancellation, and in a thread; a later sweep proves the place gone."""
    inner = BlockingRelease(world=lab.world) if action == "block" else lab.driver
    driver = lab.chaos(Fault(hook="release", action=action, seconds=1.2, calls=(1,)), inner=inner)
    async with lab.ready(driver, settings=lab.settings(release_timeout_seconds=0.3)) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run("run-hangs"))
        hanging = asyncio.create_task(orchestrator.release_for_run(lab.run("run-hangs")))
        await asyncio.sleep(0.05)
        await orchestrator.acquire_lease(environment, lab.run("run-other"))
        done = await orchestrator.release_for_run(lab.run("run-other"))
        assert len(done.released) == 1
        assert not hanging.done()
        report = await asyncio.wait_for(hanging, 10.0)
        assert [error.error.code for error in report.errors] == [ErrorCode.LEASE_RELEASE_FAILED]
        (row,) = [row for row in lab.leases() if row["run_id"] == "run-hangs"]
        assert row["status"] == "pending_cleanup"
        await asyncio.sleep(1.2 if action == "block" else 0)
        swept = await orchestrator.reap(force=True)
        assert [item.result for item in swept.items] == ["gone"]
    assert lab.resources() == []


# -- N leases, N outcomes ---------------------------------------------------------------------------------------------


async def test_one_failure_never_stops_the_others(lab: Any) -> None:
    """(behaviour 20) N leases are N independent outcomes, each with its own activity."""
    driver = lab.chaos(failing("Unavailable", calls=(2,)))
    async with lab.ready(driver) as (orchestrator, environment):
        ids = {
            (await orchestrator.acquire_lease(environment, lab.run(), lease_key=f"key-{number}")).id
            for number in range(3)
        }
        report = await orchestrator.release_for_run(lab.run(), status="failed", failure_reason="the tests were red")
    assert len(report.released) == 2
    assert len(report.errors) == 1
    assert {lease.id for lease in report.released} | {error.lease_id for error in report.errors} == ids
    events = lab.activities("environment.lease_released")
    assert {event["entity_id"] for event in events} == ids
    assert sorted(event["details"]["cleanup_status"] for event in events) == ["pending", "success", "success"]
    assert {row["failure_reason"] for row in lab.leases()} == {"the tests were red"}


async def test_only_the_active_leases_of_that_run_are_released(lab: Any) -> None:
    """(behaviour 19)"""
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        other = await orchestrator.acquire_lease(environment, lab.run("run-2"))
        report = await orchestrator.release_for_run(lab.run())
        assert len(report.released) == 1
        assert (await orchestrator.leases.get(other.id)).status == "active"


async def test_a_second_release_releases_nothing_and_is_no_error(lab: Any) -> None:
    """(behaviour 19) nor does it call the driver or record anything again."""
    async with lab.ready() as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        await orchestrator.release_for_run(lab.run())
        again = await orchestrator.release_for_run(lab.run())
        by_id = await orchestrator.leases.release(lease.id)
    assert (again.released, again.errors) == ((), ())
    assert by_id.errors == ()
    assert lab.driver.count("release") == 1
    assert len(lab.activities("environment.lease_released")) == 1


async def test_two_releases_at_once_make_one_driver_call(lab: Any) -> None:
    """(behaviour 19)"""
    driver = lab.chaos(Fault(hook="release", action="slow", seconds=0.1))
    async with lab.ready(driver) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        reports = await asyncio.gather(
            orchestrator.release_for_run(lab.run()),
            orchestrator.release_for_run(lab.run(), status="failed"),
            orchestrator.leases.release(lease.id),
        )
    assert driver.count("release") == 1
    assert not any(report.errors for report in reports)
    assert lab.lease()["outcome"] == "released"


async def test_a_store_that_is_gone_is_one_error_for_all(lab: Any) -> None:
    """(behaviour 19) it never raises: a store failure is one error with lease id ``*``."""
    settings = lab.settings(release_on_close=False)
    async with lab.ready(settings=settings) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        away = lab.path.with_suffix(".away")
        lab.path.rename(away)
        report = await orchestrator.release_for_run(lab.run())
        away.rename(lab.path)
        assert report.released == ()
        ((lease_id, error),) = [(error.lease_id, error.error) for error in report.errors]
        assert lease_id == "*"
        assert isinstance(error, StoreError)
        assert lab.driver.count("release") == 0
        report = await orchestrator.release_for_run(lab.run())
        assert len(report.released) == 1


async def test_a_receipt_that_cannot_be_written_is_found_again_by_a_sweep(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 20) killed or cut off between the driver's release and the row's write."""
    away = lab.path.with_suffix(".away")

    class Cutting(FakeDriver):
        @hookimpl
        async def release(self, request: ReleaseRequest) -> ReleaseReceipt:
            receipt = await FakeDriver.release(self, request)
            if not away.exists() and self.count("release") == 1:
                lab.path.rename(away)
            return receipt

    async with lab.ready(Cutting(world=lab.world)) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run())
        away.rename(lab.path)
        assert [type(error.error).__mro__[1] for error in report.errors] == [StoreError]
        assert lab.lease()["status"] == "releasing"
        swept = await orchestrator.reap(force=True)
        assert [item.result for item in swept.items] == ["gone"]
    assert lab.lease()["status"] == "released"


# -- what is said of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["released", "expired", "failed"])
async def test_the_status_that_was_asked_is_the_outcome(lab: Any, status: str) -> None:
    """(behaviours 19 and 21)"""
    async with lab.ready() as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run(), status=status, failure_reason="why not")
    assert [lease.status for lease in report.released] == [status]
    row = lab.lease()
    assert (row["status"], row["outcome"], row["failure_reason"]) == (status, status, "why not")
    (event,) = lab.activities("environment.lease_released")
    assert (event["entity_id"], event["actor_type"], event["actor_id"]) == (lease.id, "agent", "agent-1")
    assert event["details"] == {"status": status, "cleanup_status": "success", "failure_reason": "why not"}


async def test_the_callers_reason_stands_above_the_rows(lab: Any) -> None:
    """(behaviour 19)"""
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        lab.sql("UPDATE leases SET failure_reason = 'the row says'")
        await orchestrator.release_for_run(lab.run(), status="failed", failure_reason="the caller says")
        assert lab.lease()["failure_reason"] == "the caller says"
        await orchestrator.acquire_lease(environment, lab.run("run-2"))
        lab.sql("UPDATE leases SET failure_reason = 'the row says' WHERE run_id = 'run-2'")
        await orchestrator.release_for_run(lab.run("run-2"), status="failed")
    assert {row["failure_reason"] for row in lab.leases()} == {"the caller says", "the row says"}


async def test_a_failing_activity_never_blocks_a_release(lab: Any) -> None:
    """(behaviour 21)"""
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        lab.sql("CREATE TRIGGER refuse BEFORE INSERT ON activity BEGIN SELECT RAISE(ABORT, 'no room'); END")
        report = await orchestrator.release_for_run(lab.run())
        lab.sql("DROP TRIGGER refuse")
    assert [lease.status for lease in report.released] == ["released"]
    assert lab.activities("environment.lease_released") == []


async def test_an_end_that_is_proven_later_is_announced_once(lab: Any) -> None:
    """(behaviour 21)"""
    driver = lab.chaos(failing("Unavailable", calls=(1, 2)))
    async with lab.ready(driver) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        await orchestrator.release_for_run(lab.run())
        await orchestrator.reap(force=True)
        assert lab.lease()["attempts"] == 1
        assert lab.lease()["cleanup_status"] == "failed"
        await orchestrator.reap(force=True)
    assert lab.lease()["status"] == "released"
    assert len(lab.activities("environment.lease_released")) == 1


# -- commands and teardown --------------------------------------------------------------------------------------------


async def test_a_release_ends_the_running_command_first(lab: Any, until: Any) -> None:
    """(behaviour 20) the command's end is seen before the driver's release is called, and nothing new starts."""
    living: list[int] = []

    class Counting(FakeDriver):
        @hookimpl
        async def release(self, request: ReleaseRequest) -> ReleaseReceipt:
            living.append(len(self.world.processes()))
            return await FakeDriver.release(self, request)

    async with lab.session(Counting(world=lab.world)) as (orchestrator, session):
        task = asyncio.create_task(session.execute(["tree"]))
        await until(lambda: len(lab.world.processes()) == 3)
        await orchestrator.release_for_run(lab.run())
        result = await task
        assert (result.outcome, result.kill_confirmed, result.exit_code) == ("cancelled", True, None)
        assert session.lost.is_set()
    assert living == [0]
    assert lab.lease()["status"] == "released"


async def test_teardown_and_cleanup_commands_run_and_their_failures_are_recorded(lab: Any) -> None:
    """(behaviour 21)"""
    order: list[str] = []

    async def shell(command: Any) -> int:
        order.append(command.argv[4] if command.argv[0] == "sh" else command.argv[2])
        if order[-1] == "clean":
            await command.write("stderr", b"no broom\n")
            return 3
        return 0

    async with lab.ready(lab.fake(sh=shell, bash=shell)) as (orchestrator, _):
        overlay = Overlay(teardown="tear", cleanup="clean")
        async with orchestrator.session(environment="build", overlay=overlay):
            assert order == []
    assert order == ["tear", "clean"]
    assert lab.lease()["status"] == "released"
    (event,) = lab.activities("environment.lease_released")
    assert event["details"]["teardown_failures"] == ["cleanup: exit code 3: no broom"]


async def test_a_teardown_command_that_hangs_is_bounded(lab: Any) -> None:
    async def shell(_: Any) -> int:
        await asyncio.sleep(60)
        return 0

    settings = lab.settings(teardown_timeout_seconds=0.1, grace_seconds=0.0)
    async with lab.ready(lab.fake(sh=shell), settings=settings) as (orchestrator, _):
        async with asyncio.timeout(10):
            async with orchestrator.session(environment="build", overlay=Overlay(teardown="hang")):
                pass
    assert lab.lease()["status"] == "released"
    (event,) = lab.activities("environment.lease_released")
    assert event["details"]["teardown_failures"] == ["teardown: teardown command timed out"]


async def test_teardown_runs_also_after_a_provision_command_that_failed(lab: Any) -> None:
    """What has to be torn down may have been set up half."""
    order: list[str] = []

    async def shell(command: Any) -> int:
        order.append(command.argv[4])
        return 1 if order[-1] == "set-up" else 0

    async with lab.ready(lab.fake(sh=shell)) as (orchestrator, _):
        with pytest.raises(Exception, match="Failed to provision"):
            async with orchestrator.session(environment="build", overlay=Overlay(provision="set-up", teardown="tear")):
                pass
    assert order == ["set-up", "tear"]


async def test_no_command_can_start_while_teardown_runs(lab: Any) -> None:
    """(behaviour 20) a lease that is being given back takes no more work."""
    seen: list[Any] = []

    async def shell(_: Any) -> int:
        seen.append(await asyncio.gather(session.execute(["true"]), return_exceptions=True))
        return 0

    async with lab.session(lab.fake(sh=shell), overlay=Overlay(teardown="tear")) as (_, session):
        pass
    ((error,),) = seen
    assert getattr(error, "code", None) == ErrorCode.LEASE_LOST
    assert lab.lease()["status"] == "released"


# -- what a row alone is good for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["edited", "archived", "deleted", "re-drivered"])
async def test_a_release_needs_the_row_alone(lab: Any, change: str, monkeypatch: Any) -> None:
    """(behaviour 8) the environment was edited, archived, deleted or given another driver meanwhile."""
    monkeypatch.setenv("OLD", "the old token")
    seen: list[Any] = []

    class Seeing(FakeDriver):
        @hookimpl
        async def release(self, request: ReleaseRequest) -> ReleaseReceipt:
            seen.append((request.config.label, request.config.token.reveal(), request.handle["version"]))
            return await FakeDriver.release(self, request)

    drivers = {"fake": Seeing(world=lab.world), "other": FakeDriver(name="other")}
    async with lab.open(drivers=drivers, settings=lab.settings(release_on_close=False)) as orchestrator:
        await orchestrator.environments.create("build", "fake", {"label": "then", "token": "env:OLD"})
        await orchestrator.acquire_for_run(lab.run(), "build")
        if change == "edited":
            await orchestrator.environments.update("build", config={"label": "now"})
        elif change == "archived":
            await orchestrator.environments.archive("build")
        elif change == "re-drivered":
            await orchestrator.environments.update("build", driver="other")
        else:
            lab.sql("DELETE FROM environments")
        report = await orchestrator.release_for_run(lab.run())
    assert [lease.status for lease in report.released] == ["released"]
    assert seen == [("then", "the old token", 1)]
    assert lab.resources() == []


async def test_a_config_of_an_older_driver_is_read_leniently(lab: Any) -> None:
    """(behaviour 8) a key that the driver dropped meanwhile does not stop the release."""
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        lab.sql("UPDATE leases SET config = ?", json.dumps({"label": "x", "dropped": 1}))
        report = await orchestrator.release_for_run(lab.run())
    assert [lease.status for lease in report.released] == ["released"]


async def test_a_driver_that_is_missing_at_release_leaves_it_to_clean_up(lab: Any) -> None:
    """(behaviour 22) and a sweep with the driver present ends it."""
    async with lab.ready(settings=lab.settings(release_on_close=False)) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
    async with lab.open(drivers={}) as orchestrator:
        report = await orchestrator.leases.release(lease.id)
        assert "no driver named 'fake'" in str(report.errors[0].error)
        assert lab.lease()["status"] == "pending_cleanup"
        assert "DriverMissing" in lab.lease()["last_error"]
        swept = await orchestrator.reap(force=True)
        assert [item.result for item in swept.items] == ["pending"]
        assert lab.lease()["attempts"] == 1
    assert lab.resources() == [lease.resource_id]
    async with lab.open() as orchestrator:
        swept = await orchestrator.reap(force=True)
        assert [item.result for item in swept.items] == ["gone"]
    assert lab.lease()["status"] == "released"
    assert lab.resources() == []


async def test_a_secret_that_is_missing_at_release_is_named_and_tried_again(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 22)"""
    monkeypatch.setenv("BUILD_TOKEN", "hunter2-hunter2")
    async with lab.open() as orchestrator:
        environment = await orchestrator.environments.create("build", "fake", {"token": "env:BUILD_TOKEN"})
        await orchestrator.acquire_lease(environment, lab.run())
        monkeypatch.delenv("BUILD_TOKEN")
        await orchestrator.release_for_run(lab.run())
        row = lab.lease()
        assert row["status"] == "pending_cleanup"
        assert "secret_missing" in row["last_error"]
        assert "BUILD_TOKEN" in row["last_error"]
        monkeypatch.setenv("BUILD_TOKEN", "another value")
        swept = await orchestrator.reap(force=True)
        assert [item.result for item in swept.items] == ["gone"]
    assert lab.lease()["status"] == "released"


async def test_an_upgrade_of_the_config_that_crashes_leaves_the_lease_to_clean_up(lab: Any) -> None:
    """(behaviour 22) a driver's bug in a pure hook is a failed release like any other."""

    class Upgrading(FakeDriver):
        @hookimpl
        def driver_info(self) -> Any:
            return attrs.evolve(FakeDriver.driver_info(self), config_version=2)

        @hookimpl
        def upgrade_config(self, from_version: int, data: Any) -> Any:
            raise KeyError(f"nothing for {from_version}")

    async with lab.ready(settings=lab.settings(release_on_close=False)) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
    async with lab.open(Upgrading(world=lab.world)) as orchestrator:
        report = await orchestrator.leases.release(lease.id)
        assert [type(error.error).__name__ for error in report.errors] == ["EnvironmentRunError"]
        assert lab.lease()["status"] == "pending_cleanup"


async def test_a_disposition_other_than_destroy_keeps_the_resource(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run(), disposition=Disposition.STOP)
        assert [lease.status for lease in report.released] == ["retained"]
        assert lab.world.resources[lease.resource_id].state is ResourceState.STOPPED


# -- cancelled and closed ---------------------------------------------------------------------------------------------


async def test_a_cancelled_release_still_ends(lab: Any, until: Any) -> None:
    """Cancelling the caller stops the waiting, not the step."""
    driver = lab.chaos(Fault(hook="release", action="slow", seconds=0.2))
    async with lab.ready(driver) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        task = asyncio.create_task(orchestrator.release_for_run(lab.run()))
        await until(lambda: driver.count("release"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: lab.lease()["status"] == "released")
    assert driver.count("release") == 1
    assert lab.resources() == []


async def test_closing_the_orchestrator_gives_back_what_it_holds(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        await orchestrator.acquire_lease(environment, lab.run("run-2"))
    assert {(row["status"], row["failure_reason"]) for row in lab.leases()} == {
        ("expired", "its orchestrator was closed")
    }
    assert lab.resources() == []
    assert lab.driver.count("close") == 1
    assert lab.sql("SELECT * FROM holders") == []


async def test_closing_while_an_acquire_is_under_way_gives_that_back_too(lab: Any, until: Any) -> None:
    driver = lab.chaos(Fault(hook="acquire", action="slow", seconds=0.2))
    async with lab.ready(driver) as (orchestrator, environment):
        task = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run()))
        await until(lambda: driver.count("acquire"))
    await asyncio.gather(task, return_exceptions=True)
    assert lab.lease()["status"] in ("expired", "failed")
    assert lab.resources() == []


async def test_leases_that_are_kept_at_close_are_taken_over_by_the_next_sweep(lab: Any) -> None:
    async with lab.ready(settings=lab.settings(release_on_close=False)) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
    assert lab.lease()["status"] == "active"
    async with lab.open() as orchestrator:
        planned = await orchestrator.reap(dry_run=True)
        assert [(item.lease_id, item.result) for item in planned.items] == [(lease.id, "planned")]
        assert lab.lease()["status"] == "active"
        swept = await orchestrator.reap()
        assert [(item.lease_id, item.result) for item in swept.items] == [(lease.id, "gone")]
    row = lab.lease()
    assert (row["status"], row["epoch"]) == ("failed", 2)
    assert lab.resources() == []


async def test_a_copied_store_is_not_swept_until_it_is_adopted(lab: Any) -> None:
    """(architecture 4.2, rule 11) what the original's runs use must not be destroyed by the copy."""
    async with lab.ready(settings=lab.settings(release_on_close=False)) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
    copy = lab.folder / "copy.db"
    shutil.copy(lab.path, copy)
    store = await Store.open(copy)
    try:
        async with lab.open(store=store) as orchestrator:
            for dry_run in (True, False):
                with pytest.raises(SweepsOff, match=r"sojourn db adopt --new-installation"):
                    await orchestrator.reap(dry_run=dry_run)
            assert lab.driver.count("release") == 0
            await store.adopt(new_installation=False)
            swept = await orchestrator.reap()
            assert [item.result for item in swept.items] == ["gone"]
    finally:
        await store.close()
    assert lab.resources() == []
