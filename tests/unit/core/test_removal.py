"""Removing an environment: what would be hit is told first, and what runs there blocks it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.models import RunContext
from sojourn.orchestrator import Orchestrator
from sojourn.records import LeaseStatus
from sojourn.secrets import Secret
from sojourn.testing import FakeDriver, FakeWorld

RUN = RunContext(tenant="default", run_id="run", agent_id=None)


def with_orchestrator(tmp_path: Path, work: Any) -> None:
    async def inner() -> None:
        driver = FakeDriver(world=FakeWorld())
        async with Orchestrator.open(tmp_path / "db", drivers={"fake": driver}) as orchestrator:
            await work(orchestrator)

    asyncio.run(inner())


def test_the_blast_radius_names_leases_selections_and_secrets(tmp_path: Path):
    async def work(orchestrator: Orchestrator) -> None:
        environment = await orchestrator.environments.create("build", "fake", env={"T": Secret("env:T"), "U": "1"})
        await orchestrator.environments.set_default("build")
        await orchestrator.workspaces.create(workspace_id="ws", environment_id=environment.id)
        radius = await orchestrator.environments.blast_radius("build")
        assert (radius.active_leases, radius.other_leases) == ((), ())
        assert radius.selections == ("tenant default", "execution workspace ws")
        assert radius.secrets == ("env:T",)

    with_orchestrator(tmp_path, work)


def test_an_active_lease_blocks_and_force_ends_it(tmp_path: Path):
    async def work(orchestrator: Orchestrator) -> None:
        environment = await orchestrator.environments.create("build", "fake")
        lease = await orchestrator.acquire_lease(environment, RUN)
        with pytest.raises(EnvironmentRunError, match=lease.id) as failure:
            await orchestrator.environments.remove("build")
        assert failure.value.code == ErrorCode.ENVIRONMENT_IN_USE
        assert failure.value.details == {"leases": [lease.id]}
        radius = await orchestrator.environments.remove("build", force=True)
        assert [hit.id for hit in radius.active_leases] == [lease.id]
        assert await orchestrator.environments.list() == []
        ended = await orchestrator.leases.get(lease.id)
        assert ended.status is LeaseStatus.EXPIRED
        assert ended.failure_reason == "environment 'build' was removed"

    with_orchestrator(tmp_path, work)


def test_a_default_that_is_removed_is_none_any_more(tmp_path: Path):
    async def work(orchestrator: Orchestrator) -> None:
        await orchestrator.environments.create("build", "fake")
        await orchestrator.environments.set_default("build")
        await orchestrator.environments.remove("build")
        assert (await orchestrator.resolve_environment()).environment.name == "local"

    with_orchestrator(tmp_path, work)


def test_an_environment_of_a_driver_that_is_gone_can_be_removed(tmp_path: Path):
    async def work(orchestrator: Orchestrator) -> None:
        await orchestrator.environments.create("build", "fake", env={"T": Secret("file:/t")})

    async def later() -> None:
        async with Orchestrator.open(tmp_path / "db") as orchestrator:
            assert (await orchestrator.environments.blast_radius("build")).secrets == ("file:/t",)
            await orchestrator.environments.remove("build")

    with_orchestrator(tmp_path, work)
    asyncio.run(later())
