"""What a run would do, step by step, and what would stop it; nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from sojourn import acquiring
from sojourn.errors import EnvironmentRunError, WorkspaceError
from sojourn.models import Isolation, Transfer
from sojourn.realization import why_not_provisioned
from sojourn.realization_records import Overlay, Workspace
from sojourn.records import Environment, LeasePolicy
from sojourn.resolution import LevelTrace, Resolution, fits
from sojourn.runtime import Runtime
from sojourn.store import leases
from sojourn.variables import Variables
from sojourn.workspace.copying import check_source
from sojourn.workspace.worktrees import plan_worktree

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Capacity", "Explanation", "explain"]


@attrs.frozen(kw_only=True)
class Capacity:
    """How many leases an environment may have at once (None: any number), and how many take up room now."""

    max_leases: int | None
    occupied: int


@attrs.frozen(kw_only=True)
class Explanation:
    """What a run would do.

    Args:
        environment: that would be used; one without an id would be made by the run (the tenant's local one).
        level: that chose it.
        trace: every level, and what became of it.
        driver: its name.
        driver_version: of its distribution.
        isolation: the border between the run's commands and the machine they run on.
        transport: of the execution target.
        transfer: how the workspace would get there; None when the one asked for is not offered.
        workspace: the caller's tree, and the strategy.
        provision: whether the provision command would run; None where there is none.
        provision_reason: why it would not.
        policy: what would become of the place afterwards.
        capacity: of the environment.
        problems: what would stop the run before its first command, one sentence each.
    """

    environment: Environment
    level: str
    trace: tuple[LevelTrace, ...]
    driver: str
    driver_version: str
    isolation: Isolation
    transport: str
    transfer: Transfer | None
    workspace: Workspace
    provision: bool | None
    provision_reason: str | None
    policy: LeasePolicy
    capacity: Capacity
    problems: tuple[str, ...]


async def explain(
    runtime: Runtime,
    found: Resolution,
    *,
    workspace: Workspace,
    transfer: Transfer | None,
    overlay: Overlay,
    variables: Variables,
    policy: LeasePolicy,
) -> Explanation:
    """Explain a resolution; see `Orchestrator.explain`.

    Raises:
        EnvironmentRunError: ``driver_unavailable``.
    """
    environment = found.environment
    driver = runtime.drivers.get(environment.driver)
    problems: list[str] = []
    used: Transfer | None = None
    try:
        used = await acquiring.check(runtime, environment, transfer=transfer, policy=policy, variables=variables)
        fits(found.adapter, environment, driver.info.transport)
    except EnvironmentRunError as error:
        problems.append(error.message)
    capacity = await runtime.store.read(_capacity, environment)
    if capacity.max_leases is not None and capacity.occupied >= capacity.max_leases:
        problems.append(
            f"environment {environment.name!r} is full: {capacity.occupied} of {capacity.max_leases} leases"
        )
    problems += await _workspace_problems(workspace)
    skipped = why_not_provisioned(driver.info.transport, used or driver.info.transfers[0], workspace, overlay)
    return Explanation(
        environment=environment,
        level=found.level,
        trace=found.trace,
        driver=driver.name,
        driver_version=driver.info.version,
        isolation=driver.info.isolation,
        transport=driver.info.transport,
        transfer=used,
        workspace=workspace,
        provision=skipped is None if overlay.provision else None,
        provision_reason=skipped if overlay.provision else None,
        policy=policy,
        capacity=capacity,
        problems=tuple(problems),
    )


def _capacity(conn: Connection, environment: Environment) -> Capacity:
    occupied = leases.count_occupying(conn, environment.id) if environment.id else 0
    return Capacity(max_leases=environment.max_leases, occupied=occupied)


async def _workspace_problems(workspace: Workspace) -> list[str]:
    if workspace.local_path is None:
        return []
    source = Path(workspace.local_path).absolute()
    try:
        check_source(source)
        if workspace.strategy == "git_worktree":
            await plan_worktree(source, "sj-explain", workspace.branch)
    except WorkspaceError as error:
        return [str(error)]
    return []
