"""Give a lease back: claim the row, end what runs, let the driver act, and write down only what was proven."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from sojourn.drivers import Driver
from sojourn.errors import (
    DriverError,
    EnvironmentRunError,
    ErrorCode,
    Gone,
    LeaseLost,
    SojournError,
    StoreError,
)
from sojourn.logs import logger
from sojourn.models import (
    Actor,
    Disposition,
    InventoryRequest,
    ReleaseReceipt,
    ReleaseRequest,
    ResourceState,
    StopReason,
)
from sojourn.records import ActivityEvent, CleanupStatus, Lease, LeaseOutcome, LeaseStatus
from sojourn.resolvers import MissingSecret
from sojourn.run_errors import of_lease
from sojourn.runtime import SYSTEM, HeldLease, Runtime, agent_or
from sojourn.store import activity, clock, leases
from sojourn.workspace.worktrees import remove_recorded_worktree

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Ending", "LeaseError", "ReleaseReport", "clean_up", "record", "release_held", "release_now", "release_row"]

log = logger("sojourn.leases")

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 3600.0


@attrs.frozen
class Ending:
    """How a lease is to end.

    Args:
        outcome: ``released``, ``expired`` (cancelled, or its lifetime is over) or ``failed``.
        reason: why it failed; stands above the reason in the row.
        disposition: what becomes of the resource; None takes what the policy says.
        actor: who ends it; None is the run's agent, else the operator.
    """

    outcome: LeaseOutcome = LeaseOutcome.RELEASED
    reason: str | None = None
    disposition: Disposition | None = None
    actor: Actor | None = None


@attrs.frozen(kw_only=True)
class LeaseError:
    """A lease that could not be given back: it waits for clean-up. ``lease_id`` ``*`` is a failure of the store."""

    lease_id: str
    error: SojournError


@attrs.frozen(kw_only=True)
class ReleaseReport:
    """What became of each lease of a run."""

    released: tuple[Lease, ...] = ()
    errors: tuple[LeaseError, ...] = ()


async def release_held(runtime: Runtime, held: HeldLease, ending: Ending) -> Lease:
    """Release a lease of this orchestrator; a second call joins the first.

    Cancelling the caller stops the waiting, not the release.

    Returns:
        The row afterwards: its outcome, or ``pending_cleanup`` where the end is not proven.

    Raises:
        LeaseLost: another holder has the row.
        StoreError: the claim could not be written; nothing was done.
    """
    step = runtime.steps.get(held.lease.id)
    if step is None:
        step = runtime.own(release_now(runtime, held, ending), lease_id=held.lease.id)
    lease: Lease = await asyncio.shield(step)
    return lease


async def release_now(runtime: Runtime, held: HeldLease, ending: Ending) -> Lease:
    """The release itself, for a step of ours that ends a lease; everybody else calls `release_held`."""
    held.closing = True
    if held.unhealthy and ending.outcome is LeaseOutcome.RELEASED:
        ending = attrs.evolve(ending, outcome=LeaseOutcome.FAILED, reason=ending.reason or held.unhealthy)
    try:
        claimed = await runtime.store.run(_claim, runtime.holder_id, held.lease, ending)
    except LeaseLost:
        forget(runtime, held)
        await held.stop_commands(StopReason.LEASE_LOST)
        raise
    except StoreError:
        held.closing = False
        raise
    await held.stop_commands(StopReason.CANCELLED)
    async with held.exclusive:
        failures = await _tear_down(held)
        try:
            return await release_row(runtime, claimed, agent_or(claimed.context, ending.actor), failures)
        finally:
            forget(runtime, held)


def forget(runtime: Runtime, held: HeldLease) -> None:
    """The lease is not ours any more; whoever still works with it is told."""
    runtime.held.pop(held.lease.id, None)
    held.lost.set()


async def _tear_down(held: HeldLease) -> list[str]:
    failures = []
    for command in held.teardown:
        problem = await command()
        if problem:
            failures.append(problem)
    return failures


def _claim(conn: Connection, holder_id: str, lease: Lease, ending: Ending) -> Lease:
    return leases.claim_release(
        conn,
        lease.id,
        lease.epoch,
        holder_id=holder_id,
        outcome=ending.outcome,
        disposition=ending.disposition or Disposition.DESTROY,
        failure_reason=ending.reason,
    )


async def claim_row(runtime: Runtime, lease: Lease, ending: Ending) -> Lease:
    """Claim the release of an active lease that another orchestrator may hold; it finds its lease lost.

    Raises:
        LeaseLost: it is not active any more.
    """
    return await runtime.store.run(_claim, runtime.holder_id, lease, ending)


async def release_row(runtime: Runtime, claimed: Lease, actor: Actor, failures: list[str] | None = None) -> Lease:
    """Make the driver call for a row in state ``releasing`` that we claimed, and write what it proved."""
    try:
        receipt = await _call_release(runtime, claimed, actor, claimed.disposition or Disposition.DESTROY)
        problem = _unfulfilled(claimed, receipt)
    except DriverError as error:
        problem = _sentence(error)
        log.warning("lease %s could not be given back: %s", claimed.id, problem, extra={"lease_id": claimed.id})
    notes = {"teardown_failures": failures} if failures else {}

    def write(conn: Connection) -> tuple[Lease, ActivityEvent | None]:
        if problem is None:
            done = leases.complete_release(conn, claimed, state=receipt.state, handle=receipt.handle)
        else:
            next_try_at = clock.now(conn) + timedelta(seconds=FIRST_RETRY_SECONDS)
            done = leases.release_unproven(conn, claimed, error=problem, next_try_at=next_try_at)
        return done, record_release(conn, done, actor, notes)

    done, event = await runtime.store.run(write)
    runtime.publish([event])
    return done


def _unfulfilled(lease: Lease, receipt: ReleaseReceipt) -> str | None:
    if lease.disposition is Disposition.DESTROY and receipt.state is not ResourceState.GONE:
        return f"the driver was to destroy the resource and says it is {receipt.state}"
    return None


async def _call_release(runtime: Runtime, lease: Lease, actor: Actor, disposition: Disposition) -> ReleaseReceipt:
    """Let the driver act on the resource. Absence is success.

    Raises:
        DriverError: not proven; a missing driver or secret too.
    """
    driver = _driver_for(runtime, lease)
    try:
        config, redactor = await runtime.config_of(lease, driver, lenient=True)
    except MissingSecret as error:
        # The path says which; a sweep tries again when it is there.
        raise SecretMissing(f"secret_missing: {error}") from None
    fields = runtime.request_fields(lease, config, actor, runtime.timeout_of(lease, "release"))
    request = ReleaseRequest(**fields, disposition=disposition)
    try:
        receipt = await runtime.call("release", lease, actor, redactor, lambda: driver.release(request))
    except Gone:
        receipt = ReleaseReceipt(state=ResourceState.GONE)
    if receipt.state is ResourceState.GONE:
        await remove_recorded_worktree(lease)
    return receipt


class SecretMissing(DriverError):
    """A secret that the release needs has no value here."""


class DriverMissing(DriverError):
    """The lease's driver is not installed here, or broken."""


def _driver_for(runtime: Runtime, lease: Lease) -> Driver:
    try:
        return runtime.drivers.get(lease.driver)
    except EnvironmentRunError as error:
        raise DriverMissing(str(error)) from None


async def clean_up(runtime: Runtime, lease: Lease, actor: Actor = SYSTEM, *, force: bool = False) -> Lease:
    """Make one clean-up attempt for a row in state ``pending_cleanup``.

    Args:
        runtime: ours.
        lease: as read.
        actor: who asked.
        force: also when it is not due.

    Returns:
        The row afterwards; ``pending_cleanup`` with the error when it is still not proven gone.

    Raises:
        LeaseLost: another sweeper claimed it, or it is not due.
    """
    claimed = await runtime.store.run(_claim_cleanup, lease, runtime.holder_id, force=force)
    try:
        receipt = await _call_release(runtime, claimed, actor, Disposition.DESTROY)
        problem = _unfulfilled(attrs.evolve(claimed, disposition=Disposition.DESTROY), receipt)
        if problem is None and claimed.not_before is not None:
            problem = await _still_listed(runtime, claimed, actor)
    except DriverError as error:
        problem = _sentence(error)

    def write(conn: Connection) -> tuple[Lease, ActivityEvent | None]:
        if problem is not None:
            return leases.cleanup_failed(conn, claimed, problem), None
        done = leases.cleanup_succeeded(conn, claimed)
        # A lease that was never active was never announced, so its end is not either.
        announce = done.status.terminal and done.acquired_at is not None and not _announced(conn, done)
        return done, record_release(conn, done, actor, {}) if announce else None

    done, event = await runtime.store.run(write)
    runtime.publish([event])
    if problem is not None:
        log.warning("clean-up attempt %d of lease %s failed: %s", done.attempts, done.id, problem)
    return done


async def _still_listed(runtime: Runtime, lease: Lease, actor: Actor) -> str | None:
    """A late create shows up in the inventory only; ask, where the driver has one."""
    driver = _driver_for(runtime, lease)
    if not driver.has("inventory"):
        return None
    config, redactor = await runtime.config_of(lease, driver, lenient=True)
    request = InventoryRequest(
        installation_id=runtime.store.installation_id,
        environment_id=lease.environment_id,
        config=config,
        context=lease.context,
        actor=actor,
        timeout_seconds=runtime.settings.inventory_timeout_seconds,
    )
    items = await runtime.call("inventory", lease, actor, redactor, lambda: driver.inventory(request))
    listed = any(item.resource_id == lease.resource_id for item in items)
    return f"resource {lease.resource_id} is still in the driver's inventory" if listed else None


def _claim_cleanup(conn: Connection, lease: Lease, holder_id: str, *, force: bool) -> Lease:
    wait_seconds = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**lease.attempts)
    next_try_at = clock.now(conn) + timedelta(seconds=wait_seconds)
    return leases.claim_cleanup(conn, lease, holder_id=holder_id, next_try_at=next_try_at, force=force)


def _announced(conn: Connection, lease: Lease) -> bool:
    events = activity.list_all(conn, lease.tenant, entity_id=lease.id)
    return any(event.action == "environment.lease_released" for event in events)


def _sentence(error: DriverError) -> str:
    return f"{type(error).__name__}: {error}"


# -- activity ---------------------------------------------------------------------------------------------------------


def record_release(conn: Connection, lease: Lease, actor: Actor, notes: Mapping[str, Any]) -> ActivityEvent | None:
    """Record the end of a lease, in the transaction of its transition."""
    settled = lease.status.terminal or lease.status is LeaseStatus.RETAINED
    details = {
        "status": lease.outcome,
        "cleanup_status": CleanupStatus.SUCCESS if settled else CleanupStatus.PENDING,
        "failure_reason": lease.failure_reason,
        **notes,
    }
    return record(conn, lease, actor, "environment.lease_released", details)


def record(
    conn: Connection, lease: Lease, actor: Actor, action: str, details: Mapping[str, Any]
) -> ActivityEvent | None:
    """Record something that happened to a lease."""
    return activity.record(
        conn,
        tenant=lease.tenant,
        actor_type=actor.type,
        actor_id=actor.id,
        agent_id=lease.context.agent_id,
        run_id=lease.context.run_id,
        action=action,
        entity_type="lease",
        entity_id=lease.id,
        details=dict(details),
    )


def release_error(lease: Lease) -> EnvironmentRunError:
    """Say of a lease that waits for clean-up what happened and what will."""
    message = (
        f"lease {lease.id} in environment {lease.environment_name!r} was not proven gone: {lease.last_error}. "
        "It waits for clean-up; `sojourn reap` tries again"
    )
    return of_lease(ErrorCode.LEASE_RELEASE_FAILED, message, lease, phase="release", retryable=True)
