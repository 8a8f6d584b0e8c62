"""Resolve: which environment a run uses, and why (behaviours 1 to 5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.records import AdapterSpec
from sojourn.resolution import UNSET, Selection
from sojourn.testing import FakeDriver


def drivers(lab: Any) -> dict[str, Any]:
    return {"fake": lab.driver, "local": FakeDriver(world=lab.world, name="local")}


async def test_an_empty_selection_is_the_local_environment_made_once(lab: Any) -> None:
    """(behaviour 1) lazily, once, also under concurrency."""
    async with lab.open(drivers=drivers(lab)) as orchestrator:
        assert lab.sql("SELECT * FROM environments") == []
        found = await asyncio.gather(*(orchestrator.resolve_environment() for _ in range(10)))
    (row,) = lab.sql("SELECT * FROM environments")
    assert (row["name"], row["driver"], row["status"]) == ("local", "local", "active")
    assert {resolution.environment.id for resolution in found} == {row["id"]}
    assert {resolution.level for resolution in found} == {"local"}


async def test_two_orchestrators_make_one_local_environment(lab: Any) -> None:
    """(behaviour 1)"""
    async with lab.open(drivers=drivers(lab)) as one, lab.open(drivers=drivers(lab)) as two:
        await asyncio.gather(*(o.resolve_environment() for o in (one, two) for _ in range(5)))
    assert len(lab.sql("SELECT * FROM environments")) == 1


async def test_an_existing_local_environment_is_left_untouched(lab: Any) -> None:
    """(behaviour 1)"""
    async with lab.open(drivers=drivers(lab)) as orchestrator:
        await orchestrator.environments.create("local", "local", {"label": "mine"}, description="as I made it")
        before = lab.sql("SELECT * FROM environments")
        found = await orchestrator.resolve_environment(Selection())
    assert lab.sql("SELECT * FROM environments") == before
    assert found.environment.config == {"label": "mine"}


@pytest.mark.parametrize("value", ["env_nonexistent", "nowhere"])
async def test_an_unknown_environment_is_not_found_and_what_there_is_is_named(lab: Any, value: str) -> None:
    """(behaviour 2)"""
    async with lab.ready() as (orchestrator, _):
        with pytest.raises(EnvironmentRunError, match="build") as failure:
            await orchestrator.resolve_environment(value)
    assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND
    assert value in str(failure.value)


async def test_another_tenants_environment_is_not_found_and_nothing_of_it_is_told(lab: Any) -> None:
    """(behaviour 2)"""
    async with lab.ready() as (_, environment), lab.open(tenant="other") as other:
        with pytest.raises(EnvironmentRunError, match="does not belong to tenant 'other'") as failure:
            await other.resolve_environment(environment.id)
        assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND
        assert "build" not in str(failure.value)
        assert failure.value.driver is None
        with pytest.raises(EnvironmentRunError, match="There are: none yet"):
            await other.resolve_environment("build")


async def test_two_tenants_may_use_one_name(lab: Any) -> None:
    async with lab.ready() as (_, mine), lab.open(tenant="other") as other:
        theirs = await other.environments.create("build", "fake")
        assert (await other.resolve_environment("build")).environment.id == theirs.id != mine.id


async def test_an_archived_environment_is_inactive_and_named_with_its_status(lab: Any) -> None:
    """(behaviour 3)"""
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.environments.archive("build")
        with pytest.raises(EnvironmentRunError, match="'build' is archived, not active") as failure:
            await orchestrator.resolve_environment(Selection(issue="build"))
    assert failure.value.code is ErrorCode.ENVIRONMENT_INACTIVE
    assert failure.value.details["id"] == environment.id
    assert failure.value.details["driver"] == "fake"
    assert "named by: issue" in str(failure.value)


async def test_the_default_that_was_archived_is_an_error_and_no_silent_fall_back(lab: Any) -> None:
    """(behaviours 3 and 5) never on the host unless that is what was chosen."""
    async with lab.open(drivers=drivers(lab)) as orchestrator:
        await orchestrator.environments.create("build", "fake")
        await orchestrator.environments.set_default("build")
        await orchestrator.environments.archive("build")
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.resolve_environment()
    assert failure.value.code is ErrorCode.ENVIRONMENT_INACTIVE


LEVELS = ["requested", "execution workspace", "issue", "project", "agent", "tenant", "local"]


@pytest.mark.parametrize("level", LEVELS)
async def test_the_highest_level_that_says_something_decides(lab: Any, level: str) -> None:
    """(behaviour 4) and the trace tells of every level what became of it."""
    async with lab.open(drivers=drivers(lab)) as orchestrator:
        for name in LEVELS[:-1]:
            await orchestrator.environments.create(name.replace(" ", "-"), "fake")
        said = LEVELS[LEVELS.index(level) :]
        if "tenant" in said:
            await orchestrator.environments.set_default("tenant")
        selection = Selection(
            requested="requested" if "requested" in said else None,
            execution_workspace="execution-workspace" if "execution workspace" in said else None,
            issue="issue" if "issue" in said else None,
            project="project" if "project" in said else None,
            agent="agent" if "agent" in said else UNSET,
        )
        found = await orchestrator.resolve_environment(selection)
    assert found.level == level
    assert found.environment.name == level.replace(" ", "-")
    verdicts = {entry.level: entry.verdict for entry in found.trace}
    assert list(verdicts) == LEVELS
    above = dict.fromkeys(LEVELS[: LEVELS.index(level)], "passed over")
    below = dict.fromkeys(said[1:], "not reached")
    assert verdicts == {**above, level: "chosen", **below}
    assert all(entry.reason for entry in found.trace)


async def test_a_disabled_project_policy_does_not_count(lab: Any) -> None:
    """(behaviour 4)"""
    async with lab.open(drivers=drivers(lab)) as orchestrator:
        await orchestrator.environments.create("project", "fake")
        await orchestrator.environments.create("agent", "fake")
        selection = Selection(project="project", project_policy_enabled=False, agent="agent")
        found = await orchestrator.resolve_environment(selection)
    assert found.environment.name == "agent"
    (entry,) = [entry for entry in found.trace if entry.level == "project"]
    assert (entry.verdict, entry.value, entry.reason) == ("passed over", "project", "its policy is disabled")


async def test_an_explicit_null_of_the_agent_means_deliberately_local(lab: Any) -> None:
    """(behaviour 4) and stands above the tenant's default."""
    async with lab.open(drivers=drivers(lab)) as orchestrator:
        await orchestrator.environments.create("build", "fake")
        await orchestrator.environments.set_default("build")
        found = await orchestrator.resolve_environment(Selection(agent=None))
        assert (found.level, found.environment.name) == ("agent", "local")
        (entry,) = [entry for entry in found.trace if entry.level == "agent"]
        assert entry.reason == "deliberately local"
        assert (await orchestrator.resolve_environment(Selection())).environment.name == "build"


async def test_the_stored_execution_workspaces_choice_counts_where_the_selection_is_silent(lab: Any) -> None:
    """(behaviour 4)"""
    async with lab.ready() as (orchestrator, environment):
        other = await orchestrator.environments.create("other", "fake")
        await orchestrator.workspaces.create(workspace_id="ws-1", environment_id=environment.id)
        found = await orchestrator.resolve_environment(Selection(issue="other"), execution_workspace_id="ws-1")
        assert (found.level, found.environment.id) == ("execution workspace", environment.id)
        selection = Selection(execution_workspace=other.id)
        found = await orchestrator.resolve_environment(selection, execution_workspace_id="ws-1")
        assert found.environment.id == other.id
        acquired = await orchestrator.acquire_for_run(lab.run(execution_workspace_id="ws-1"), Selection(issue="other"))
        assert acquired.environment.id == environment.id


async def test_the_trace_is_stored_with_the_lease(lab: Any) -> None:
    """(behaviour 4)"""
    async with lab.ready() as (orchestrator, _):
        acquired = await orchestrator.acquire_for_run(lab.run(), Selection(issue="build"))
        stored = lab.lease()["metadata"]["resolution"]
    assert [(entry["level"], entry["verdict"]) for entry in stored] == [
        (entry.level, entry.verdict) for entry in acquired.resolution.trace
    ]
    assert [entry["verdict"] for entry in stored].count("chosen") == 1


async def test_an_environment_is_found_by_id_and_by_name(lab: Any) -> None:
    async with lab.ready() as (orchestrator, environment):
        for value in (environment.id, "build"):
            assert (await orchestrator.resolve_environment(value)).environment == environment


# -- adapters ---------------------------------------------------------------------------------------------------------


async def test_an_adapter_that_does_not_fit_the_transport_fails_before_anything_is_leased(lab: Any) -> None:
    """(behaviour 5)"""
    async with lab.ready() as (orchestrator, _):
        orchestrator.register_adapter(AdapterSpec(type="editor", transports=frozenset({"ssh", "local"})))
        with pytest.raises(
            EnvironmentRunError, match=r"adapter 'editor' cannot run .* runs over local, ssh"
        ) as failure:
            await orchestrator.acquire_for_run(lab.run(), "build", adapter="editor")
        assert failure.value.code is ErrorCode.UNSUPPORTED_ADAPTER_ENVIRONMENT
        with pytest.raises(EnvironmentRunError):
            await orchestrator.resolve_environment("build", adapter="editor")
    assert lab.leases() == []
    assert lab.driver.count("acquire") == 0


async def test_an_adapter_that_fits_and_one_that_nobody_named_run(lab: Any) -> None:
    """(behaviour 5)"""
    async with lab.ready() as (orchestrator, _):
        orchestrator.register_adapter(AdapterSpec(type="editor", transports=frozenset({"fake"})))
        for adapter in ("editor", "unheard-of"):
            found = await orchestrator.resolve_environment("build", adapter=adapter)
            assert found.adapter.type == adapter


async def test_an_environment_whose_driver_is_missing_fails_at_resolve(lab: Any) -> None:
    """(behaviours 5 and 7)"""
    async with lab.ready() as (_, environment):
        pass
    async with lab.open(drivers={}) as orchestrator:
        with pytest.raises(EnvironmentRunError, match="no driver named 'fake'") as failure:
            await orchestrator.acquire_for_run(lab.run(), environment.id)
    assert failure.value.code is ErrorCode.DRIVER_UNAVAILABLE
    assert lab.leases() == []
