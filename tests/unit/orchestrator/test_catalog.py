"""What is stored, through the catalogue: environments, execution workspaces and leases, checked before they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sojourn.errors import EnvironmentRunError, ErrorCode, LeaseLost, StoreError
from sojourn.records import LeasePolicy
from sojourn.secrets import Secret


async def test_an_environment_is_stored_as_given(lab: Any) -> None:
    async with lab.open() as orchestrator:
        made = await orchestrator.environments.create(
            "build",
            "fake",
            {"label": "x", "token": "env:T"},
            env={"A": "b", "S": Secret("file:/s")},
            policy=LeasePolicy.EPHEMERAL,
            max_leases=3,
            timeouts={"acquire": 5.0},
            description="for builds",
        )
        assert await orchestrator.environments.get("build") == made == await orchestrator.environments.get(made.id)
        assert await orchestrator.environments.list() == [made]
    assert made.config == {"label": "x", "token": "env:T"}
    assert made.env == {"A": "b", "S": Secret("file:/s")}
    assert (made.max_leases, made.timeouts, made.status) == (3, {"acquire": 5.0}, "active")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {}, "a name is"),
        ("../x", {}, "a name is"),
        ("x" * 64, {}, "a name is"),
        ("new\nline", {}, "a name is"),
        ("local", {}, "runs on driver local"),
        ("build", {"config": {"usable": "false"}}, r"environments\.build\.config\.usable: expected true or false"),
        ("build", {"config": {"unheard_of": 1}}, "unknown key; known are"),
        ("build", {"env": {"SOJOURN_RESOURCE_ID": "x"}}, "reserved"),
        ("build", {"env": {"A B": "x"}}, "does not match"),
        ("build", {"max_leases": 0}, "at least 1"),
        ("build", {"timeouts": {"aquire": 5.0}}, "unknown; known are"),
        ("build", {"timeouts": {"acquire": 0.0}}, "above 0"),
        ("build", {"timeouts": {"acquire": float("nan")}}, "above 0"),
        ("build", {"timeouts": {"acquire": float("inf")}}, "above 0"),
    ],
)
async def test_what_cannot_work_is_refused_with_its_path_before_it_is_stored(
    lab: Any, name: str, options: Any, message: str
) -> None:
    async with lab.open() as orchestrator:
        with pytest.raises(EnvironmentRunError, match=message) as failure:
            await orchestrator.environments.create(name, "fake", **options)
    assert failure.value.code is ErrorCode.INVALID_CONFIG
    assert lab.sql("SELECT * FROM environments") == []


async def test_an_unknown_driver_is_refused(lab: Any) -> None:
    async with lab.open() as orchestrator:
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.environments.create("build", "nothing")
    assert failure.value.code is ErrorCode.DRIVER_UNAVAILABLE


async def test_a_name_that_is_taken_is_refused_also_by_an_archived_one(lab: Any) -> None:
    async with lab.ready() as (orchestrator, _):
        with pytest.raises(StoreError, match="build"):
            await orchestrator.environments.create("build", "fake")
        await orchestrator.environments.archive("build")
        with pytest.raises(StoreError, match="build"):
            await orchestrator.environments.create("build", "fake")
        assert await orchestrator.environments.list() == []
        assert len(await orchestrator.environments.list(include_archived=True)) == 1


async def test_an_update_changes_what_it_names_and_checks_it(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        changed = await orchestrator.environments.update("build", config={"label": "y"}, status="archived")
        assert (changed.id, changed.config, changed.status) == (environment.id, {"label": "y"}, "archived")
        with pytest.raises(EnvironmentRunError, match="expected text"):
            await orchestrator.environments.update("build", config={"label": 1})
        assert (await orchestrator.environments.get("build")).config == {"label": "y"}
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.environments.update("nowhere", config={})
        assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND


async def test_another_tenants_environment_cannot_be_read_or_changed(lab: Any) -> None:
    async with lab.ready() as (_, environment), lab.open(tenant="other") as other:
        for call in (
            other.environments.get(environment.id),
            other.environments.update(environment.id, description="mine now"),
            other.environments.archive(environment.id),
            other.environments.set_default(environment.id),
        ):
            with pytest.raises(EnvironmentRunError) as failure:
                await call
            assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND
        assert await other.environments.list() == []


async def test_execution_workspaces_are_stored_per_tenant(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment), lab.open(tenant="other") as other:
        made = await orchestrator.workspaces.create(mode="shared", environment_id=environment.id, metadata={"a": 1})
        assert await orchestrator.workspaces.get(made.id) == made
        assert await orchestrator.workspaces.list() == [made]
        assert await other.workspaces.get(made.id) is None
        changed = await orchestrator.workspaces.update(made.id, mode="isolated")
        assert (changed.mode, changed.metadata) == ("isolated", {"a": 1})


async def test_leases_are_shown_per_tenant_and_narrowed(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment), lab.open(tenant="other") as other:
        one = await orchestrator.acquire_lease(environment, lab.run())
        two = await orchestrator.acquire_lease(environment, lab.run("run-2"))
        assert [lease.id for lease in await orchestrator.leases.list()] == [one.id, two.id]
        assert [lease.id for lease in await orchestrator.leases.list(run_id="run-2")] == [two.id]
        assert [lease.id for lease in await orchestrator.leases.list(limit=1)] == [two.id]
        assert await other.leases.list() == []
        assert await other.leases.get(one.id) is None
        with pytest.raises(LeaseLost, match="there is no lease"):
            await other.leases.release(one.id)
        assert lab.driver.count("release") == 0


async def test_a_lease_is_extended_by_hand(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        lease = await orchestrator.acquire_lease(environment, lab.run())
        end = datetime.now(UTC) + timedelta(days=3)
        assert (await orchestrator.leases.extend(lease.id, end)).expires_at == end
        await orchestrator.leases.release(lease.id)
        with pytest.raises(LeaseLost):
            await orchestrator.leases.extend(lease.id, end)


async def test_a_lease_of_another_orchestrator_is_released_by_hand_and_lost_there(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment), lab.open() as other:
        lease = await orchestrator.acquire_lease(environment, lab.run())
        report = await other.leases.release(lease.id, status="expired", failure_reason="by hand")
        assert [done.status for done in report.released] == ["expired"]
        report = await orchestrator.release_for_run(lab.run())
        assert (report.released, report.errors) == ((), ())
    assert lab.driver.count("release") == 1
    assert lab.lease()["failure_reason"] == "by hand"
