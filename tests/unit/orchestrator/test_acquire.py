"""Acquire: what is written before, during and after, and what every failure of a driver comes to (behaviours 6 to 13)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from sojourn.errors import DriverBug, Effect, EnvironmentRunError, ErrorCode, OutcomeUnknown, StoreUnavailable
from sojourn.hooks import hookimpl
from sojourn.models import AcquireRequest, AcquireResult, Actor
from sojourn.records import LeasePolicy
from sojourn.secrets import Secret
from sojourn.store import leases as lease_rows
from sojourn.testing import FakeDriver, Fault
from sojourn.variables import Variables

CLEAN = [
    "InvalidConfig",
    "InvalidArgument",
    "Unsupported",
    "PermissionDenied",
    "HostKeyMismatch",
    "Conflict",
    "Refused",
]
RETRIED = ["Busy", "Unavailable", "ResourceExhausted"]
UNKNOWN = ["OutcomeUnknown", "DriverBug"]
FOREIGN = [
    "RuntimeError",
    "OSError",
    "MemoryError",
    "RecursionError",
    "SystemExit",
    "GeneratorExit",
    "CancelledError",
    "BaseException",
    "StopAsyncIteration",
]


def raising(error: str, **more: Any) -> Fault:
    return Fault(hook="acquire", action="raise", error=error, message="the inner message", **more)


# -- failures of the driver -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", CLEAN)
async def test_an_error_without_effect_fails_the_lease_at_once(lab: Any, error: str) -> None:
    """(behaviour 6; table of driver errors: one call, row failed, nothing cleaned up)"""
    driver = lab.chaos(raising(error))
    async with lab.ready(driver) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
    row = lab.lease()
    assert (row["status"], row["outcome"], row["cleanup_status"]) == ("failed", "failed", "success")
    assert "the inner message" in row["failure_reason"]
    assert (driver.count("acquire"), driver.count("release")) == (1, 0)
    assert failure.value.code is ErrorCode.LEASE_ACQUIRE_FAILED
    assert (failure.value.effect, failure.value.retryable) == (Effect.NONE, False)
    assert (failure.value.lease_id, failure.value.phase) == (row["id"], "acquire")
    for part in ("build", "fake", "the inner message"):
        assert part in str(failure.value)
    assert type(failure.value.__cause__).__name__ == error
    assert lab.activities() == []


@pytest.mark.parametrize("error", RETRIED)
async def test_an_error_that_may_pass_is_tried_five_times_and_then_fails_the_lease(lab: Any, error: str) -> None:
    """(behaviour 6; table of driver errors: Busy, Unavailable, ResourceExhausted)"""
    driver = lab.chaos(raising(error))
    async with lab.ready(driver) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
    assert (driver.count("acquire"), driver.count("release")) == (5, 0)
    assert lab.lease()["status"] == "failed"
    assert (failure.value.effect, failure.value.retryable) == (Effect.NONE, True)


async def test_an_error_that_passes_leaves_an_active_lease_and_one_resource(lab: Any) -> None:
    """(behaviour 6) a retry that succeeds is a success, also when the failed call had its effect."""
    driver = lab.chaos(raising("Unavailable", calls=(1,)), raising("Busy", calls=(2, 3), when="after"))
    async with lab.ready(driver) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        assert lease.status == "active"
        assert driver.count("acquire") == 4
        assert lab.resources() == [lease.resource_id]


@pytest.mark.parametrize("error", [*UNKNOWN, *FOREIGN])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_unknown_outcome_is_repeated_once_and_then_cleaned_up(lab: Any, error: str, when: Any) -> None:
    """(behaviour 6; table of driver errors: OutcomeUnknown, DriverBug and everything else) no duplicate, nothing left."""
    driver = lab.chaos(raising(error, when=when))
    async with lab.ready(driver) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
    assert failure.value.code is ErrorCode.LEASE_ACQUIRE_FAILED
    assert (failure.value.effect, failure.value.retryable) == (Effect.MAYBE, False)
    assert isinstance(failure.value.__cause__, OutcomeUnknown if error == "OutcomeUnknown" else DriverBug)
    if error in FOREIGN:
        assert error in str(failure.value)
    assert (driver.count("acquire"), driver.count("release")) == (2, 1)
    assert (lab.lease()["status"], lab.lease()["cleanup_status"]) == ("failed", "success")
    assert lab.resources() == []


async def test_an_unknown_outcome_that_is_known_the_second_time_is_a_success(lab: Any) -> None:
    """(behaviour 6) the repeat gets the resource that the first call had made."""
    driver = lab.chaos(raising("OutcomeUnknown", calls=(1,), when="after"))
    async with lab.ready(driver) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        assert lab.resources() == [lease.resource_id]
    assert driver.count("acquire") == 2


async def test_gone_at_acquire_is_a_bug_of_the_driver(lab: Any) -> None:
    """(table of driver errors: Gone at acquire) what nobody said to be there cannot be gone."""
    driver = lab.chaos(raising("Gone", when="after"))
    async with lab.ready(driver) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
    assert isinstance(failure.value.__cause__, DriverBug)
    assert failure.value.effect is Effect.MAYBE
    assert lab.lease()["status"] == "failed"
    assert lab.resources() == []


@pytest.mark.parametrize("garbage", ["none", "wrong_type", "nan_handle", "huge_handle", "unserialisable_handle"])
async def test_an_impossible_answer_is_a_bug_and_nothing_of_it_is_stored(lab: Any, garbage: Any) -> None:
    """(behaviour 6) also when the resource was made: it is cleaned up."""
    driver = lab.chaos(Fault(hook="acquire", action="garbage", garbage=garbage, when="after"))
    async with lab.ready(driver) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
    assert isinstance(failure.value.__cause__, DriverBug)
    row = lab.lease()
    assert (row["status"], row["handle"]) == ("failed", None)
    assert lab.resources() == []


def test_a_keyboard_interrupt_of_a_driver_passes_up_and_leaves_nothing(lab: Any) -> None:
    """(behaviour 6) an interrupt is the user's, not the driver's; what was made is cleaned up, now or by a sweep."""
    driver = lab.chaos(raising("KeyboardInterrupt", when="after", calls=(1,)))

    async def interrupted() -> None:
        async with lab.ready(driver) as (orchestrator, environment):
            await orchestrator.acquire_lease(environment, lab.run())

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted())

    async def sweep() -> None:
        async with lab.ready() as (orchestrator, _):
            await orchestrator.reap(force=True)

    asyncio.run(sweep())
    assert lab.lease()["status"] in ("failed", "expired")
    assert lab.resources() == []


# -- a driver that hangs ----------------------------------------------------------------------------------------------


class BlockingAcquire(FakeDriver):
    """A driver whose acquire is a plain def; it runs in a thread, where no cancellation reaches it."""

    @hookimpl
    def acquire(self, request: AcquireRequest) -> AcquireResult:
        return asyncio.run(FakeDriver.acquire(self, request))


@pytest.mark.parametrize("action", ["hang", "hang_ignoring_cancel", "block"])
async def test_a_hanging_acquire_meets_its_deadline_while_others_are_served(lab: Any, action: Any) -> None:
    """(behaviour 6) async, ignoring its cancellation, and in a thread: pending_cleanup, proven gone by a later sweep."""
    inner = BlockingAcquire(world=lab.world) if action == "block" else lab.driver
    driver = lab.chaos(Fault(hook="acquire", action=action, seconds=1.5, calls=(1,), when="after"), inner=inner)
    settings = lab.settings(acquire_timeout_seconds=0.3, late_effect_seconds=0.6)
    async with lab.ready(driver, settings=settings) as (orchestrator, environment):
        hanging = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run("run-hangs")))
        await asyncio.sleep(0.05)
        other = await orchestrator.acquire_lease(environment, lab.run("run-other"))
        assert not hanging.done(), "the other run had to wait for the one that hangs"
        with pytest.raises(EnvironmentRunError) as failure:
            await asyncio.wait_for(hanging, 10.0)
        assert failure.value.code is ErrorCode.LEASE_ACQUIRE_FAILED
        assert failure.value.effect is Effect.MAYBE
        hung, _ = sorted(lab.leases(), key=lambda row: row["run_id"])
        assert (hung["run_id"], hung["status"]) == ("run-hangs", "pending_cleanup")
        assert hung["not_before"] is not None
        assert driver.count("acquire") == 2, "a call that may still be running was repeated"
        await asyncio.sleep(0.7)
        report = await orchestrator.reap(force=True)
        assert [(item.lease_id, item.result) for item in report.items] == [(hung["id"], "gone")]
        assert lab.resources() == [other.resource_id]


async def test_a_late_acquire_is_not_proven_gone_before_it_could_have_landed(lab: Any) -> None:
    """(behaviour 22) absence proves nothing before ``not_before``."""
    driver = lab.chaos(raising("OutcomeUnknown", when="after"))
    settings = lab.settings(late_effect_seconds=3600.0)
    async with lab.ready(driver, settings=settings) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
        assert lab.lease()["status"] == "pending_cleanup"
        # What is there already goes at once; only the proof has to wait.
        assert lab.resources() == []
        assert not getattr(failure.value.__cause__, "__notes__", []), "the row was written; there is nothing to note"
        report = await orchestrator.reap(force=True)
        assert [item.result for item in report.items] == ["pending"]
    assert lab.lease()["status"] == "pending_cleanup"


# -- before anything is written ---------------------------------------------------------------------------------------


async def test_a_missing_driver_is_named_with_what_is_installed_before_any_row(lab: Any) -> None:
    """(behaviour 7)"""
    async with lab.ready() as (orchestrator, environment):
        gone = attrs.evolve(environment, driver="my_cloud")
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(gone, lab.run())
    assert failure.value.code is ErrorCode.DRIVER_UNAVAILABLE
    for part in ("my_cloud", "fake", "pip install sojourn-my-cloud"):
        assert part in str(failure.value)
    assert lab.leases() == []


async def test_a_broken_driver_is_refused_with_its_reason_before_any_row(lab: Any) -> None:
    """(behaviour 7)"""

    class Broken(FakeDriver):
        @hookimpl
        def driver_info(self) -> Any:
            raise SystemExit("no licence")

    async with lab.ready(drivers={"fake": lab.driver, "broken": Broken()}) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match="no licence") as failure:
            await orchestrator.acquire_lease(attrs.evolve(environment, driver="broken"), lab.run())
    assert failure.value.code is ErrorCode.DRIVER_UNAVAILABLE
    assert lab.leases() == []


async def test_every_missing_secret_is_listed_with_its_scope_before_any_row(lab: Any) -> None:
    """(behaviour 18)"""
    async with lab.open() as orchestrator:
        environment = await orchestrator.environments.create(
            "build", "fake", {"token": "env:NO_TOKEN"}, env={"A": Secret("env:NO_A")}
        )
        variables = Variables(
            agent={"B": Secret("env:NO_B")}, project={"C": Secret("file:/no/c")}, run={"D": Secret("vault:d")}
        )
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run(), variables=variables)
    assert failure.value.code is ErrorCode.INVALID_CONFIG
    for part in (
        "environments.build.config.token",
        "NO_TOKEN",
        "environments.build.env.A",
        "NO_A",
        "agent.env.B",
        "NO_B",
        "project.env.C",
        "/no/c",
        "run.env.D",
        "vault:d",
    ):
        assert part in str(failure.value)
    assert lab.leases() == []
    assert lab.driver.count("acquire") == 0


@pytest.mark.parametrize("layer", ["agent", "project", "run"])
async def test_a_reserved_name_is_refused_loudly_in_every_layer(lab: Any, layer: str) -> None:
    """(behaviour 18)"""
    async with lab.ready() as (orchestrator, environment):
        variables = Variables(**{layer: {"SOJOURN_RESOURCE_ID": "mine"}})
        with pytest.raises(EnvironmentRunError, match=rf"{layer}\.env\.SOJOURN_RESOURCE_ID is reserved") as failure:
            await orchestrator.acquire_lease(environment, lab.run(), variables=variables)
    assert failure.value.code is ErrorCode.INVALID_CONFIG
    assert lab.leases() == []


async def test_a_transfer_that_the_driver_lacks_is_unsupported_before_any_row(lab: Any) -> None:
    class CopyOnly(FakeDriver):
        @hookimpl
        def driver_info(self) -> Any:
            return attrs.evolve(FakeDriver.driver_info(self), transfers=("copy",))

    async with lab.ready(CopyOnly(world=lab.world)) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match="does not offer transfer 'in_place'") as failure:
            await orchestrator.acquire_lease(environment, lab.run(), transfer="in_place")
    assert failure.value.code is ErrorCode.UNSUPPORTED_ENVIRONMENT
    assert lab.leases() == []


async def test_a_stored_config_that_does_not_fit_any_more_is_invalid_config(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        bad = attrs.evolve(environment, config={"usable": "yes"})
        with pytest.raises(EnvironmentRunError, match=r"environments\.build\.config\.usable") as failure:
            await orchestrator.acquire_lease(bad, lab.run())
    assert failure.value.code is ErrorCode.INVALID_CONFIG
    assert lab.leases() == []


# -- the row and its activity -----------------------------------------------------------------------------------------


async def test_the_row_is_written_before_the_driver_is_called(lab: Any) -> None:
    """Intent first: a driver sees its lease as a committed row in state acquiring."""
    seen: list[str] = []

    class Looking(FakeDriver):
        @hookimpl
        async def acquire(self, request: AcquireRequest) -> AcquireResult:
            (row,) = lab.leases()
            seen.append((row["id"], row["resource_id"], row["status"]))
            assert (request.lease_id, request.resource_id, request.epoch) == (row["id"], row["resource_id"], 1)
            assert request.labels["sojourn.resource"] == row["resource_id"]
            return await FakeDriver.acquire(self, request)

    async with lab.ready(Looking(world=lab.world)) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
    assert seen == [(lease.id, lease.resource_id, "acquiring")]


async def test_the_row_carries_for_whom_it_is_and_the_config_with_its_references(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 8)"""
    monkeypatch.setenv("BUILD_TOKEN", "a value that is not stored")
    async with lab.open() as orchestrator:
        environment = await orchestrator.environments.create("build", "fake", {"token": "env:BUILD_TOKEN"})
        run = lab.run(
            issue_id="issue-7",
            execution_workspace_id="ws-1",
            execution_workspace_mode="shared",
            trace={"traceparent": "00-1"},
        )
        acquired = await orchestrator.acquire_for_run(run, "build")
        row = lab.lease()
        assert row["trace"] == json.dumps({"traceparent": "00-1"}) or json.loads(row["trace"]) == {
            "traceparent": "00-1"
        }
        wanted = {
            "tenant": "default",
            "environment_id": environment.id,
            "environment_name": "build",
            "run_id": "run-1",
            "agent_id": "agent-1",
            "issue_id": "issue-7",
            "execution_workspace_id": "ws-1",
            "execution_workspace_mode": "shared",
            "policy": "ephemeral",
            "driver": "fake",
            "provider": "fake",
            "provider_lease_id": f"fake://{row['resource_id']}",
            "config": {"token": "env:BUILD_TOKEN"},
            "status": "active",
        }
        assert {key: row[key] for key in wanted} == wanted
        assert row["metadata"]["resolution"][0]["level"] == "requested"
        assert acquired.lease.context == run
        assert acquired.lease_context.execution_workspace_id == "ws-1"
        assert acquired.lease_context.execution_workspace_mode == "shared"
        assert acquired.execution_transport is None


async def test_acquire_is_recorded_with_its_actor_and_facts(lab: Any) -> None:
    """(behaviour 9) by the agent, or whoever was named, or the operator where there is no agent."""
    async with lab.ready() as (orchestrator, environment):
        run = lab.run(issue_id="issue-7", execution_workspace_id="ws-1")
        lease = await orchestrator.acquire_lease(environment, run)
        await orchestrator.acquire_lease(environment, lab.run("run-2"), actor=Actor(type="operator", id="kim"))
        await orchestrator.acquire_lease(environment, lab.run(None, agent_id=None))
        first, second, third = lab.activities("environment.lease_acquired")
    assert (first["actor_type"], first["actor_id"]) == ("agent", "agent-1")
    assert (first["entity_type"], first["entity_id"], first["run_id"]) == ("lease", lease.id, "run-1")
    assert first["details"] == {
        "environment_id": environment.id,
        "driver": "fake",
        "policy": "ephemeral",
        "provider": "fake",
        "execution_workspace_id": "ws-1",
        "issue_id": "issue-7",
    }
    assert (second["actor_type"], second["actor_id"], second["agent_id"]) == ("operator", "kim", "agent-1")
    assert (third["actor_type"], third["actor_id"], third["run_id"]) == ("operator", None, None)


async def test_a_failing_activity_does_not_stop_the_acquire(lab: Any, caplog: Any) -> None:
    """(behaviour 9) the transition stands, and the log says what is missing."""
    async with lab.ready() as (orchestrator, environment):
        lab.sql("CREATE TRIGGER refuse BEFORE INSERT ON activity BEGIN SELECT RAISE(ABORT, 'no room'); END")
        lease = await orchestrator.acquire_lease(environment, lab.run())
        assert lease.status == "active"
        assert lab.activities() == []
        assert "was not recorded" in caplog.text
        lab.sql("DROP TRIGGER refuse")


async def test_a_row_that_cannot_be_written_after_acquire_gives_the_place_back(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 9) the provider's create succeeded, the row's write failed: nothing is left."""

    def unwritable(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the disk is away")

    async with lab.ready() as (orchestrator, environment):
        monkeypatch.setattr(lease_rows, "activate", unwritable)
        with pytest.raises(EnvironmentRunError, match="the disk is away") as failure:
            await orchestrator.acquire_lease(environment, lab.run())
        assert isinstance(failure.value.__cause__, StoreUnavailable)
    assert lab.lease()["status"] == "failed"
    assert lab.resources() == []


async def test_a_row_that_cannot_be_written_and_a_teardown_that_fails_wait_for_clean_up(
    lab: Any, monkeypatch: Any
) -> None:
    """(behaviour 9) the original error is never hidden by the clean-up's; a sweep finishes the work."""

    def unwritable(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the disk is away")

    driver = lab.chaos(Fault(hook="release", action="raise", error="Unavailable", calls=(1,)))
    async with lab.ready(driver) as (orchestrator, environment):
        with monkeypatch.context() as patch:
            patch.setattr(lease_rows, "activate", unwritable)
            with pytest.raises(EnvironmentRunError, match="the disk is away"):
                await orchestrator.acquire_lease(environment, lab.run())
    row = lab.lease()
    assert (row["status"], row["cleanup_status"], row["attempts"]) == ("pending_cleanup", "failed", 1)
    assert "Unavailable" in row["last_error"]
    async with lab.ready(driver) as (orchestrator, _):
        report = await orchestrator.reap(force=True)
        assert [item.result for item in report.items] == ["gone"]
    assert lab.resources() == []


async def test_a_failing_transport_gives_the_place_back_and_stays_the_error(lab: Any) -> None:
    """(behaviours 9 and 17)"""
    driver = lab.chaos(Fault(hook="target", action="raise", error="Unsupported", message="no way in"))
    async with lab.ready(driver) as (orchestrator, _):
        with pytest.raises(EnvironmentRunError, match="no way in") as failure:
            await orchestrator.acquire_for_run(lab.run(), "build")
        assert failure.value.code is ErrorCode.TRANSPORT_RESOLUTION_FAILED
        row = lab.lease()
        assert (row["status"], row["outcome"]) == ("failed", "failed")
        assert "no way in" in row["failure_reason"]
        assert lab.resources() == []


async def test_a_clean_up_that_fails_is_noted_on_the_error_that_led_to_it(lab: Any) -> None:
    """(behaviour 9)"""
    driver = lab.chaos(
        Fault(hook="target", action="raise", error="Unsupported", message="no way in"),
        Fault(hook="release", action="raise", error="Unavailable", message="no way out", calls=(1,)),
    )
    async with lab.ready(driver) as (orchestrator, _):
        with pytest.raises(EnvironmentRunError, match="no way in") as failure:
            await orchestrator.acquire_for_run(lab.run(), "build")
        assert any("no way out" in note and "reap" in note for note in failure.value.__notes__)
        assert lab.lease()["status"] == "pending_cleanup"


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit", "CancelledError", "DriverBug", "Gone"])
async def test_whatever_target_raises_is_a_failed_transport(lab: Any, error: str) -> None:
    """(behaviour 17)"""
    driver = lab.chaos(Fault(hook="target", action="raise", error=error))
    async with lab.ready(driver) as (orchestrator, _):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_for_run(lab.run(), "build")
        assert failure.value.code is ErrorCode.TRANSPORT_RESOLUTION_FAILED
        assert lab.lease()["status"] == "failed"
        assert lab.resources() == []


# -- secrets ----------------------------------------------------------------------------------------------------------


class Telling(FakeDriver):
    """A driver that repeats its token where it is told to."""

    where = "metadata"

    @hookimpl
    async def acquire(self, request: AcquireRequest) -> AcquireResult:
        result = await FakeDriver.acquire(self, request)
        token = request.config.token.reveal()
        if self.where == "handle":
            return attrs.evolve(result, handle={"version": 1, "token": token})
        return attrs.evolve(
            result, metadata={"token": token, "nested": [f"x{token}x", "fine"], "region": "north", token: 1}
        )


async def test_provider_metadata_that_holds_a_secret_is_stripped(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 10)"""
    monkeypatch.setenv("BUILD_TOKEN", "hunter2-hunter2")
    async with lab.open(Telling(world=lab.world)) as orchestrator:
        environment = await orchestrator.environments.create("build", "fake", {"token": "env:BUILD_TOKEN"})
        await orchestrator.acquire_lease(environment, lab.run())
        metadata = lab.lease()["metadata"]
    assert metadata == {"token": None, "nested": [None, "fine"], "region": "north"}
    assert "hunter2" not in lab.all_text()


async def test_a_secret_in_a_handle_is_a_bug_and_the_place_is_cleaned_up(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 10) a handle is needed as it is, so it cannot be stripped."""
    monkeypatch.setenv("BUILD_TOKEN", "hunter2-hunter2")
    driver = Telling(world=lab.world)
    driver.where = "handle"
    async with lab.open(driver) as orchestrator:
        environment = await orchestrator.environments.create("build", "fake", {"token": "env:BUILD_TOKEN"})
        with pytest.raises(EnvironmentRunError, match="secret into its handle"):
            await orchestrator.acquire_lease(environment, lab.run())
    assert lab.lease()["status"] == "failed"
    assert lab.resources() == []
    assert "hunter2" not in lab.all_text()


# -- bounded in time --------------------------------------------------------------------------------------------------


class Bounding(FakeDriver):
    """A driver whose provider ends places by itself, ``late_seconds`` after what was asked."""

    late_seconds = 0.0

    @hookimpl
    async def acquire(self, request: AcquireRequest) -> AcquireResult:
        result = await FakeDriver.acquire(self, request)
        assert request.requested_expires_at is not None
        return attrs.evolve(result, expires_at=request.requested_expires_at + timedelta(seconds=self.late_seconds))


async def test_a_driver_that_bounds_the_place_says_when_it_ends(lab: Any) -> None:
    """(behaviour 11)"""
    wanted = datetime.now(UTC) + timedelta(hours=1)
    driver = Bounding(world=lab.world)
    driver.late_seconds = -60.0
    async with lab.ready(driver) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run(), expires_at=wanted, require_expiry=True)
    assert lease.expires_at == wanted - timedelta(seconds=60)


@pytest.mark.parametrize("late_seconds", [None, 60.0])
async def test_a_place_that_must_be_bounded_and_is_not_is_released_at_once(lab: Any, late_seconds: Any) -> None:
    """(behaviour 11) by a driver that cannot, and by one that bounds it too late."""
    driver: FakeDriver = lab.driver
    if late_seconds is not None:
        driver = Bounding(world=lab.world)
        driver.late_seconds = late_seconds
    wanted = datetime.now(UTC) + timedelta(hours=1)
    async with lab.ready(driver) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match="cannot end the place by itself") as failure:
            await orchestrator.acquire_lease(environment, lab.run(), expires_at=wanted, require_expiry=True)
        assert failure.value.code is ErrorCode.LEASE_ACQUIRE_FAILED
        assert lab.lease()["status"] == "failed"
        assert lab.resources() == []


async def test_a_lifetime_that_nobody_requires_is_the_lease_s_own(lab: Any) -> None:
    """(behaviour 11) without ``require_expiry`` the core ends the lease itself."""
    wanted = datetime.now(UTC) + timedelta(hours=1)
    async with lab.ready() as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run(), expires_at=wanted)
    assert lease.expires_at == wanted


async def test_the_lifetime_of_the_settings_is_used_when_nothing_is_asked(lab: Any) -> None:
    settings = lab.settings(lease_lifetime_seconds=60.0)
    async with lab.ready(settings=settings) as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
    assert timedelta(seconds=59) < lease.expires_at - lease.created_at < timedelta(seconds=61)


# -- one run twice ----------------------------------------------------------------------------------------------------


async def test_two_concurrent_acquires_of_one_run_give_one_lease(lab: Any) -> None:
    """(behaviour 12)"""
    driver = lab.chaos(Fault(hook="acquire", action="slow", seconds=0.1))
    async with lab.ready(driver) as (orchestrator, environment):
        found = await asyncio.gather(*(orchestrator.acquire_lease(environment, lab.run()) for _ in range(5)))
        again = await orchestrator.acquire_lease(environment, lab.run())
    assert len({lease.id for lease in (*found, again)}) == 1
    assert driver.count("acquire") == 1
    assert len(lab.activities("environment.lease_acquired")) == 1


async def test_a_failed_acquire_fails_for_everybody_who_joined_it(lab: Any) -> None:
    """(behaviour 12)"""
    driver = lab.chaos(Fault(hook="acquire", action="slow", seconds=0.1), raising("Refused"))
    driver = lab.chaos(raising("Refused", when="after"), inner=lab.chaos(driver.faults[0]))
    async with lab.ready(driver) as (orchestrator, environment):
        work = (orchestrator.acquire_lease(environment, lab.run()) for _ in range(3))
        ends = await asyncio.gather(*work, return_exceptions=True)
    assert [getattr(end, "code", None) for end in ends] == [ErrorCode.LEASE_ACQUIRE_FAILED] * 3


async def test_another_orchestrator_is_told_that_the_run_has_a_lease(lab: Any) -> None:
    """(behaviour 12)"""
    async with lab.ready() as (first, environment), lab.open() as second:
        lease = await first.acquire_lease(environment, lab.run())
        with pytest.raises(EnvironmentRunError, match=lease.id) as failure:
            await second.acquire_lease(environment, lab.run())
        assert failure.value.code is ErrorCode.LEASE_ACQUIRE_FAILED
        assert failure.value.retryable
        assert f"sojourn lease release {lease.id}" in str(failure.value)
        assert len(lab.leases()) == 1


async def test_another_environment_under_the_same_key_is_refused(lab: Any) -> None:
    """(behaviour 12) a run must not get a lease in a place that it did not ask for."""
    async with lab.ready() as (orchestrator, environment):
        other = await orchestrator.environments.create("other", "fake")
        await orchestrator.acquire_lease(environment, lab.run())
        with pytest.raises(EnvironmentRunError, match="already has lease"):
            await orchestrator.acquire_lease(other, lab.run())


async def test_another_key_gives_the_run_another_lease(lab: Any) -> None:
    """(behaviour 12)"""
    async with lab.ready() as (orchestrator, environment):
        one = await orchestrator.acquire_lease(environment, lab.run())
        two = await orchestrator.acquire_lease(environment, lab.run(), lease_key="database")
        assert one.id != two.id
        assert one.resource_id != two.resource_id


async def test_a_run_without_an_id_is_never_joined(lab: Any) -> None:
    """(behaviour 12) ad-hoc tests of operators: each its own, agent and run null, ephemeral."""
    async with lab.ready() as (orchestrator, environment):
        run = lab.run(None, agent_id=None)
        one, two = [await orchestrator.acquire_lease(environment, run) for _ in range(2)]
        assert one.id != two.id
        assert {(row["run_id"], row["agent_id"], row["policy"]) for row in lab.leases()} == {(None, None, "ephemeral")}
        report = await orchestrator.release_for_run(run)
        assert [(error.lease_id, type(error.error).__name__) for error in report.errors] == [("*", "InvalidArgument")]
        report = await orchestrator.leases.release(one.id)
        assert [lease.id for lease in report.released] == [one.id]
        assert lab.resources() == [two.resource_id]


async def test_a_run_may_lease_again_after_its_release(lab: Any) -> None:
    """(behaviour 12)"""
    async with lab.ready() as (orchestrator, environment):
        one = await orchestrator.acquire_lease(environment, lab.run())
        await orchestrator.release_for_run(lab.run())
        two = await orchestrator.acquire_lease(environment, lab.run())
        assert one.id != two.id


# -- capacity ---------------------------------------------------------------------------------------------------------


async def test_a_full_environment_is_capacity_exceeded_and_free_after_a_release(lab: Any) -> None:
    async with lab.open() as orchestrator:
        environment = await orchestrator.environments.create("build", "fake", max_leases=2)
        work = (orchestrator.acquire_lease(environment, lab.run(f"run-{n}")) for n in range(8))
        ends = await asyncio.gather(*work, return_exceptions=True)
        failures = [end for end in ends if isinstance(end, EnvironmentRunError)]
        assert len(failures) == 6
        assert {(failure.code, failure.retryable) for failure in failures} == {(ErrorCode.CAPACITY_EXCEEDED, True)}
        assert len(lab.leases()) == 2
        await orchestrator.leases.release(lab.leases()[0]["id"])
        await orchestrator.acquire_lease(environment, lab.run("run-late"))


async def test_an_environment_that_was_archived_meanwhile_is_refused_before_any_row(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.environments.archive("build")
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
        assert failure.value.code is ErrorCode.ENVIRONMENT_INACTIVE
        lab.sql("DELETE FROM environments")
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run())
        assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND
    assert lab.leases() == []


async def test_a_run_or_an_environment_of_another_tenant_is_refused(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment), lab.open(tenant="other") as other:
        with pytest.raises(EnvironmentRunError, match="does not belong") as failure:
            await other.acquire_lease(environment, lab.run(tenant="other"))
        assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND
        assert "build" not in str(failure.value)
        with pytest.raises(EnvironmentRunError, match="does not belong"):
            await orchestrator.acquire_lease(environment, lab.run(tenant="other"))
    assert lab.leases() == []


async def test_a_policy_that_is_not_there_yet_is_unsupported(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.acquire_lease(environment, lab.run(), policy=LeasePolicy.RETAIN_ON_FAILURE)
    assert failure.value.code is ErrorCode.UNSUPPORTED_ENVIRONMENT
    assert lab.leases() == []


# -- cancelled --------------------------------------------------------------------------------------------------------


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_acquire_goes_on_and_is_then_given_back(lab: Any, until: Any) -> None:
    """Cancelling the caller stops the waiting, not the step."""
    driver = lab.chaos(Fault(hook="acquire", action="slow", seconds=0.2))
    async with lab.ready(driver) as (orchestrator, environment):
        task = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run()))
        await until(lambda: driver.count("acquire"))
        await cancelled(task)
        assert lab.lease()["status"] == "acquiring"
        await until(lambda: lab.lease()["status"] == "expired")
        assert "cancelled" in lab.lease()["failure_reason"]
        assert (lab.driver.count("acquire"), lab.driver.count("release")) == (1, 1)
        assert lab.resources() == []


async def test_an_acquire_that_is_cancelled_while_its_intent_is_written_is_given_back_too(lab: Any, until: Any) -> None:
    """The row may be committed when the cancellation comes: then somebody has to answer for it."""
    async with lab.ready() as (orchestrator, environment):
        for yields in range(12):
            task = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run(f"run-{yields}")))
            for _ in range(yields):
                await asyncio.sleep(0)
            await cancelled(task)
        await until(lambda: all(row["status"] in ("expired", "failed") for row in lab.leases()))
        assert lab.resources() == []


async def test_cancelling_one_of_two_callers_leaves_the_lease_to_the_other(lab: Any, until: Any) -> None:
    """(behaviour 12) the lease is given back when nobody waits for it any more, and not before."""
    driver = lab.chaos(Fault(hook="acquire", action="slow", seconds=0.2))
    async with lab.ready(driver) as (orchestrator, environment):
        first = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run()))
        await until(lambda: driver.count("acquire"))
        second = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run()))
        await asyncio.sleep(0.05)
        await cancelled(first)
        lease = await second
        await asyncio.sleep(0.1)
        assert lab.lease()["status"] == "active"
        assert lab.resources() == [lease.resource_id]


async def test_cancelling_both_callers_gives_the_lease_back(lab: Any, until: Any) -> None:
    """(behaviour 12)"""
    driver = lab.chaos(Fault(hook="acquire", action="slow", seconds=0.2))
    async with lab.ready(driver) as (orchestrator, environment):
        first = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run()))
        await until(lambda: driver.count("acquire"))
        second = asyncio.create_task(orchestrator.acquire_lease(environment, lab.run()))
        await asyncio.sleep(0.05)
        await cancelled(first)
        await cancelled(second)
        await until(lambda: lab.lease()["status"] == "expired")
        assert lab.resources() == []


async def test_a_run_that_is_cancelled_while_its_transport_is_resolved_is_given_back(lab: Any, until: Any) -> None:
    """(behaviour 9) nobody would ever know of the lease otherwise."""

    class Slow:
        @hookimpl
        async def around(self, operation: Any, call_next: Any) -> Any:
            if operation.name == "target":
                await asyncio.sleep(30)
            return await call_next()

    async with lab.ready(plugins=[Slow()]) as (orchestrator, _):
        task = asyncio.create_task(orchestrator.acquire_for_run(lab.run(), "build"))
        await until(lambda: lab.leases() and lab.lease()["status"] == "active")
        await asyncio.sleep(0.05)
        await cancelled(task)
        await until(lambda: lab.lease()["status"] == "expired")
        assert lab.resources() == []
