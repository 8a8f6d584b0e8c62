"""Realize a run's workspace in its lease: make its root, bring the tree there, provision it, and record where it is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from sojourn import wire
from sojourn.commands import CommandSpec, prepare, run_command
from sojourn.errors import DriverError, EnvironmentRunError, ErrorCode, Refused, SojournError, WorkspaceError
from sojourn.models import Actor, LocalTarget, RealizeRequest, RealizeResult, Transfer
from sojourn.provisioning import ProvisionFailed, failure_detail, provision, shell
from sojourn.realization_records import (
    Overlay,
    ProvisionRecord,
    RealizationRecord,
    RealizationRequest,
    Workspace,
)
from sojourn.records import ExecutionWorkspace, Lease
from sojourn.run_errors import of_lease
from sojourn.runtime import HeldLease, Runtime
from sojourn.store import leases, workspaces
from sojourn.targets import ExecutionTarget, resolve_target
from sojourn.workspace import worktrees
from sojourn.workspace.copying import check_source, copy_tree, plan_copy

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Realized", "realize", "why_not_provisioned"]

REQUEST_KEY = "workspace_realization_request"
RECORD_KEY = "workspace_realization"


@attrs.frozen(kw_only=True)
class Realized:
    """What realize came to; see `sojourn.Realization`."""

    lease: Lease
    record: RealizationRecord
    target: ExecutionTarget
    execution_workspace: ExecutionWorkspace | None


async def realize(runtime: Runtime, held: HeldLease, workspace: Workspace, overlay: Overlay, actor: Actor) -> Realized:
    """Realize ``workspace`` in a held lease. May be called again: the same root.

    Raises:
        EnvironmentRunError: ``workspace_realization_failed`` (``phase`` realize, transfer or provision) or
            ``transport_resolution_failed``. The lease is still held.
        LeaseLost: it is not.
    """
    async with held.exclusive:
        try:
            workspace = await _local_side(runtime, held, workspace)
            cwd = await _remote_side(runtime, held, workspace, actor)
        except (DriverError, WorkspaceError) as error:
            raise _failed(held.lease, "realize", "Failed to realize workspace for environment", error) from error
        held.cwd = _local_cwd(held, workspace) if cwd is None else cwd
        target = await resolve_target(runtime, held, held.cwd, actor)
        if held.lease.transfer == "copy" and workspace.local_path is not None and not held.transferred:
            await _transfer(runtime, held, target, workspace)
            held.transferred = True
    # Before the set-up: what fails half way has to be torn down as well.
    held.teardown = [partial(_closing_command, runtime, held, what, command) for what, command in _closing(overlay)]
    done = await _provision(runtime, held, overlay, target, workspace)
    request = _request(runtime, held, workspace, overlay)
    record = _record(held, workspace, target, done)
    return await _store(runtime, held, request, record, target, done)


def _closing(overlay: Overlay) -> list[tuple[str, str]]:
    return [
        (what, command) for what, command in (("teardown", overlay.teardown), ("cleanup", overlay.cleanup)) if command
    ]


# -- the two sides ----------------------------------------------------------------------------------------------------


async def _local_side(runtime: Runtime, held: HeldLease, workspace: Workspace) -> Workspace:
    """Check the caller's tree, and make the run's git worktree where that is asked for."""
    if workspace.local_path is None:
        return workspace
    source = Path(workspace.local_path).absolute()
    check_source(source)
    if workspace.strategy != "git_worktree":
        return attrs.evolve(workspace, local_path=str(source))
    worktree = await worktrees.plan_worktree(source, held.lease.resource_id, workspace.branch)
    # Recorded before it is made: a sweep has to know of it whatever happens next.
    patch = {worktrees.METADATA_KEY: wire.dump(worktree)}
    held.lease = await runtime.store.run(leases.merge_metadata, held.lease, patch)
    await worktrees.make_worktree(worktree)
    return attrs.evolve(
        workspace,
        local_path=worktree.workspace,
        worktree_path=worktree.path,
        branch=worktree.branch,
        repo_ref=workspace.repo_ref or worktree.base,
    )


async def _remote_side(runtime: Runtime, held: HeldLease, workspace: Workspace, actor: Actor) -> str | None:
    lease = held.lease
    if not held.driver.has("realize"):
        return await _default_root(runtime, held, actor)
    config, redactor = await runtime.config_of(lease, held.driver)
    fields = runtime.request_fields(lease, config, actor, runtime.timeout_of(lease, "realize"))
    request = RealizeRequest(
        **fields,
        transfer=lease.transfer,
        local_path=workspace.local_path,
        remote_path=lease.remote_cwd,
        # What a transfer that failed half way left has to go before the next one; what a run made must stay.
        clean=lease.transfer == "copy" and not held.transferred,
    )
    result: RealizeResult = await runtime.call("realize", lease, actor, redactor, lambda: held.driver.realize(request))
    return (result.cwd or "").strip() or lease.remote_cwd


async def _default_root(runtime: Runtime, held: HeldLease, actor: Actor) -> str | None:
    """What is done for a driver without ``realize``: make the folder that it named at acquire."""
    root = held.lease.remote_cwd
    if root is not None:
        spec = CommandSpec(argv=("mkdir", "-p", "--", root), cwd="/")
        made = await run_command(runtime, held, await prepare(runtime, held, spec, actor), spec)
        if not made.ok:
            raise Refused(f"the workspace's root {root} cannot be made: {failure_detail('mkdir', made)}")
    return root


def _local_cwd(held: HeldLease, workspace: Workspace) -> str | None:
    """A root that nobody named is the caller's own tree, and only where commands run on this machine, in that tree."""
    if held.driver.info.transport == LocalTarget.transport and held.lease.transfer == "in_place":
        return workspace.local_path
    raise _failed(
        held.lease,
        "realize",
        "Failed to realize workspace for environment",
        SojournError("no working directory came of it"),
    )


async def _transfer(runtime: Runtime, held: HeldLease, target: ExecutionTarget, workspace: Workspace) -> None:
    """Bring the caller's tree into the root: for now on this machine only."""
    assert workspace.local_path is not None  # noqa: S101 - the caller looked
    if not isinstance(target.target, LocalTarget):
        message = f"driver {held.driver.name} is not on this machine, and sending a tree elsewhere is not supported yet"
        message = f"environment {held.lease.environment_name!r}: {message}"
        raise of_lease(ErrorCode.UNSUPPORTED_ENVIRONMENT, message, held.lease, phase="transfer")
    try:
        # Closing any descriptor of the database drops the locks that this process has on it, so it stays behind.
        plan = await plan_copy(Path(workspace.local_path), workspace.exclude, runtime.store.own_files())
        await copy_tree(plan, Path(target.cwd or ""))
    except WorkspaceError as error:
        raise _failed(held.lease, "transfer", "Failed to copy the workspace for environment", error) from error


# -- provision --------------------------------------------------------------------------------------------------------


async def _provision(
    runtime: Runtime, held: HeldLease, overlay: Overlay, target: ExecutionTarget, workspace: Workspace
) -> ProvisionRecord | None:
    if not overlay.provision:
        return None
    skipped = why_not_provisioned(target.transport, held.lease.transfer, workspace, overlay)
    if skipped is not None:
        return ProvisionRecord(ran=False, reason=skipped)
    try:
        return await provision(runtime, held, overlay.provision)
    except ProvisionFailed as failure:
        await _note_failure(runtime, held, failure.record)
        raise _failed(
            held.lease, "provision", "Failed to provision workspace for environment", failure, detail=failure.detail
        ) from None
    except EnvironmentRunError as error:
        raise _failed(held.lease, "provision", "Failed to provision workspace for environment", error) from error


def why_not_provisioned(transport: str, transfer: Transfer, workspace: Workspace, overlay: Overlay) -> str | None:
    """Say why a provision command is not run in this workspace; None when it is."""
    own_tree = transport == "local" and transfer == "in_place" and workspace.strategy == "project_primary"
    if own_tree and workspace.local_path is not None and not overlay.provision_in_place:
        return "the workspace is the caller's own tree, and provision_in_place is not set"
    return None


async def _note_failure(runtime: Runtime, held: HeldLease, record: ProvisionRecord) -> None:
    """Keep the failed run with the lease; it stores no fingerprint, so the next try provisions again."""
    patch = {"provision": wire.dump(attrs.evolve(record, fingerprint=None))}
    held.lease = await runtime.store.run(leases.merge_metadata, held.lease, patch)


async def _closing_command(runtime: Runtime, held: HeldLease, what: str, command: str) -> str | None:
    """Run a teardown or cleanup command; answer what went wrong."""
    try:
        result = await shell(runtime, held, command, runtime.settings.teardown_timeout_seconds, closing=True)
    except EnvironmentRunError as error:
        return f"{what}: {error}"
    return None if result.ok else f"{what}: {failure_detail(what, result)}"


# -- records ----------------------------------------------------------------------------------------------------------


def _request(runtime: Runtime, held: HeldLease, workspace: Workspace, overlay: Overlay) -> RealizationRequest:
    lease = held.lease
    return RealizationRequest(
        adapter=held.adapter.type,
        tenant=runtime.tenant,
        environment_id=lease.environment_id,
        execution_workspace_id=lease.context.execution_workspace_id,
        issue_id=lease.context.issue_id,
        run_id=lease.context.run_id,
        requested_mode=lease.context.execution_workspace_mode,
        transfer=lease.transfer,
        source=workspace,
        overlay=overlay,
    )


def _record(
    held: HeldLease, workspace: Workspace, target: ExecutionTarget, provisioned: ProvisionRecord | None
) -> RealizationRecord:
    mode: Transfer = held.lease.transfer
    root = target.cwd or workspace.local_path or ""
    own_tree = mode == "in_place" and isinstance(target.target, LocalTarget)
    aliases = {workspace.local_path: root} if workspace.local_path and workspace.local_path != root else {}
    what = workspace.local_path or "an empty folder"
    how = "used in place" if mode == "in_place" else "copied"
    return RealizationRecord(
        mode=mode,
        authoritative_root=root,
        path_aliases=aliases,
        local={
            "path": workspace.local_path,
            "strategy": workspace.strategy,
            "branch": workspace.branch,
            "worktree": workspace.worktree_path,
        },
        remote=None if own_tree else {"cwd": target.cwd, "transport": target.transport},
        bootstrap=provisioned,
        rebuild={"transfer": mode, "repo_url": workspace.repo_url, "repo_ref": workspace.repo_ref},
        summary=f"{what} is {how} at {root} in environment {held.lease.environment_name} ({held.lease.driver}).",
    )


async def _store(
    runtime: Runtime,
    held: HeldLease,
    request: RealizationRequest,
    record: RealizationRecord,
    target: ExecutionTarget,
    provisioned: ProvisionRecord | None,
) -> Realized:
    patch: dict[str, Any] = {REQUEST_KEY: wire.dump(request), RECORD_KEY: wire.dump(record)}
    workspace_id = held.lease.context.execution_workspace_id

    def write(conn: Connection) -> tuple[Lease, ExecutionWorkspace | None]:
        lease = leases.merge_metadata(conn, held.lease, {**patch, "remote_cwd": target.cwd})
        if provisioned is not None and provisioned.ran:
            lease = leases.set_provision_fingerprint(conn, lease, provisioned.fingerprint)
        if workspace_id is None or workspaces.get(conn, runtime.tenant, workspace_id) is None:
            return lease, None
        return lease, workspaces.merge_metadata(conn, runtime.tenant, workspace_id, patch)

    held.lease, stored = await runtime.store.run(write)
    return Realized(lease=held.lease, record=record, target=target, execution_workspace=stored)


def _failed(lease: Lease, phase: str, what: str, error: Exception, *, detail: str | None = None) -> EnvironmentRunError:
    text = str(error) if detail is None else detail
    message = f"{what} {lease.environment_name!r}" + (f": {text}" if text else "")
    return of_lease(ErrorCode.WORKSPACE_REALIZATION_FAILED, message, lease, phase=phase, cause=error)
