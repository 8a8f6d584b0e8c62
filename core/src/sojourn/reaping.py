"""Put right what crashed orchestrators left: take their leases over, make the clean-up attempts that are due, say what was done."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import attrs

from sojourn import releasing
from sojourn.errors import EnvironmentRunError, LeaseLost, SojournError, StoreError
from sojourn.hosts import is_dead
from sojourn.logs import logger
from sojourn.models import Actor
from sojourn.records import Holder, Lease, LeaseOutcome, LeaseStatus
from sojourn.releasing import Ending
from sojourn.runtime import SYSTEM, Runtime
from sojourn.store import clock, holders, leases

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["ReapItem", "ReapReport", "SweepsOff", "reap"]

log = logger("sojourn.reap")


class SweepsOff(SojournError):
    """The database is a copy, or was moved: sweeping it could destroy what the original's runs are using."""


@attrs.frozen(kw_only=True)
class ReapItem:
    """One lease that needed putting right.

    Args:
        lease_id: which.
        environment_name: where.
        resource_id: of what.
        why: what was wrong, in a sentence.
        result: ``gone`` (proven), ``pending`` (not proven, tried again later), ``planned`` (dry run), ``elsewhere`` (another
            sweep has it).
        detail: the driver's error, where there is one.
    """

    lease_id: str
    environment_name: str
    resource_id: str
    why: str
    result: Literal["gone", "pending", "planned", "elsewhere"]
    detail: str | None = None


@attrs.frozen(kw_only=True)
class ReapReport:
    """What one sweep did, or would do."""

    items: tuple[ReapItem, ...]
    dry_run: bool

    @property
    def pending(self) -> tuple[ReapItem, ...]:
        """What is not proven gone yet."""
        return tuple(item for item in self.items if item.result == "pending")


async def reap(runtime: Runtime, *, dry_run: bool = False, force: bool = False, actor: Actor = SYSTEM) -> ReapReport:
    """Sweep once.

    Args:
        runtime: ours.
        dry_run: change nothing, say what would be done and why.
        force: also try leases whose next attempt is not due yet.
        actor: who asked.

    Raises:
        SweepsOff: the database is not where it was made.
        StoreError: the store cannot answer.
    """
    if not runtime.store.in_place:
        raise SweepsOff(
            f"the store {runtime.store.url} was copied or moved, so sweeps are off. Run `sojourn db adopt` if it was moved, "
            "`sojourn db adopt --new-installation` if the original is still in use"
        )
    reasons = await _take_over(runtime, dry_run=dry_run)
    if dry_run:
        return await _planned(runtime, reasons, force=force)
    await _own_orphans(runtime, reasons)
    items = [await _end_expired(runtime, lease, actor) for lease in await runtime.store.read(leases.expired)]
    waiting = await runtime.store.read(_waiting, force=force)
    items += [await _clean_up(runtime, lease, reasons, actor, force=force) for lease in waiting]
    await runtime.store.run(_forget_holders, runtime.holder_id)
    return ReapReport(items=tuple(items), dry_run=False)


# -- holders ----------------------------------------------------------------------------------------------------------


async def _take_over(runtime: Runtime, *, dry_run: bool) -> dict[str, str]:
    """Take the leases of dead holders over; return lease id → why."""
    reasons: dict[str, str] = {}
    for holder in await runtime.store.read(holders.list_all):
        why = _why_dead(holder)
        if why is None or holder.id == runtime.holder_id:
            continue
        if dry_run:
            taken = await runtime.store.read(_would_take, holder.id)
        else:
            taken = await runtime.store.run(_take, runtime, holder.id, why)
        reasons |= {lease.id: why for lease in taken}
    return reasons


def _why_dead(holder: Holder) -> str | None:
    if is_dead(holder):
        return f"its orchestrator (pid {holder.pid}) is gone"
    if holder.fenced_at is not None:
        return "its orchestrator was closed or shut out while it still held it"
    return None


def _take(conn: Connection, runtime: Runtime, holder_id: str, why: str) -> list[Lease]:
    late = any(_may_land_late(runtime, lease) for lease in leases.held_by(conn, holder_id))
    settle = timedelta(seconds=runtime.settings.late_effect_seconds if late else 0.0)
    return leases.take_over(conn, holder_id, reason=why, settle=settle)


def _would_take(conn: Connection, holder_id: str) -> list[Lease]:
    return leases.held_by(conn, holder_id) + leases.interrupted_cleanups(conn, holder_id)


def _may_land_late(runtime: Runtime, lease: Lease) -> bool:
    """Whether a create that the dead holder had sent could still take effect."""
    if lease.status is not LeaseStatus.ACQUIRING:
        return False
    try:
        return runtime.drivers.get(lease.driver).info.late_effects
    except EnvironmentRunError:
        return True


def _forget_holders(conn: Connection, own_id: str) -> None:
    """Remove dead holders that answer for nothing any more."""
    for holder in holders.list_all(conn):
        if holder.id != own_id and _why_dead(holder) is not None:
            holders.remove(conn, holder.id)


async def _own_orphans(runtime: Runtime, reasons: dict[str, str]) -> None:
    """Hand over rows of ours whose step is gone, because the store was away when it had to write."""
    for lease in await runtime.store.read(leases.held_by, runtime.holder_id):
        if lease.id in runtime.steps:
            continue
        why = f"its {lease.status} step ended without being recorded"
        if lease.status is LeaseStatus.ACQUIRING:
            await runtime.store.run(_orphaned_acquire, lease, why, runtime.settings.late_effect_seconds)
        elif lease.status is LeaseStatus.RELEASING:
            await runtime.store.run(leases.release_unproven, lease, error=why, next_try_at=None)
        else:
            continue
        reasons[lease.id] = why


def _orphaned_acquire(conn: Connection, lease: Lease, why: str, settle_seconds: float) -> Lease:
    not_before = clock.now(conn) + timedelta(seconds=settle_seconds)
    return leases.acquire_unknown(conn, lease, reason=why, outcome=LeaseOutcome.FAILED, not_before=not_before)


# -- leases -----------------------------------------------------------------------------------------------------------


def _waiting(conn: Connection, *, force: bool) -> list[Lease]:
    return leases.list_all(conn, status=LeaseStatus.PENDING_CLEANUP) if force else leases.due_for_cleanup(conn)


async def _clean_up(runtime: Runtime, lease: Lease, reasons: dict[str, str], actor: Actor, *, force: bool) -> ReapItem:
    why = reasons.get(lease.id) or lease.failure_reason or "its release was not proven"
    try:
        done = await releasing.clean_up(runtime, lease, actor, force=force)
    except LeaseLost:
        return _item(lease, why, "elsewhere")
    except (SojournError, StoreError) as error:
        log.exception("clean-up of lease %s failed", lease.id)
        return _item(lease, why, "pending", str(error))
    if done.status.terminal:
        return _item(lease, why, "gone")
    return _item(
        lease, why, "pending", done.last_error or "a late create may still take effect; tried again when it cannot"
    )


async def _end_expired(runtime: Runtime, lease: Lease, actor: Actor) -> ReapItem:
    why = f"its lifetime ended at {lease.expires_at.isoformat(timespec='seconds')}"
    ending = Ending(LeaseOutcome.EXPIRED, "lifetime", actor=actor)
    try:
        held = runtime.held.get(lease.id)
        if held is not None:
            done = await releasing.release_held(runtime, held, ending)
        else:
            done = await releasing.release_row(runtime, await releasing.claim_row(runtime, lease, ending), actor)
    except LeaseLost:
        return _item(lease, why, "elsewhere")
    except StoreError as error:
        return _item(lease, why, "pending", str(error))
    return _item(lease, why, "gone" if done.status.terminal else "pending", done.last_error)


async def _planned(runtime: Runtime, reasons: dict[str, str], *, force: bool) -> ReapReport:
    def look(conn: Connection) -> list[tuple[Lease, str]]:
        taken = [(lease, reasons[lease.id]) for lease_id in reasons if (lease := leases.get(conn, lease_id))]
        expired = [(lease, "its lifetime is over") for lease in leases.expired(conn) if lease.id not in reasons]
        waiting = [
            (lease, lease.failure_reason or "its release was not proven")
            for lease in _waiting(conn, force=force)
            if lease.id not in reasons
        ]
        return taken + expired + waiting

    found = await runtime.store.read(look)
    return ReapReport(items=tuple(_item(lease, why, "planned") for lease, why in found), dry_run=True)


def _item(
    lease: Lease, why: str, result: Literal["gone", "pending", "planned", "elsewhere"], detail: str | None = None
) -> ReapItem:
    return ReapItem(
        lease_id=lease.id,
        environment_name=lease.environment_name,
        resource_id=lease.resource_id,
        why=why,
        result=result,
        detail=detail,
    )
