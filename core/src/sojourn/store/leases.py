"""Lease transitions: each is one compare-and-set on (id, epoch, status), and zero rows means that the lease is lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import attrs
from sqlalchemy import Connection, Row, Select, Update, bindparam, case, func, or_, select

from sojourn.errors import LeaseLost
from sojourn.ids import new_id, new_resource_id
from sojourn.models import Disposition, JsonObject, ResourceState, RunContext, Transfer
from sojourn.records import CleanupStatus, Lease, LeaseOutcome, LeasePolicy, LeaseStatus
from sojourn.store import clock, holders
from sojourn.store.dialects import InsertOrIgnore
from sojourn.store.errors import LeaseExists, ResourceTaken
from sojourn.store.schema import HELD, LIVE
from sojourn.store.schema import leases as table

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import BindParameter, ColumnElement

__all__ = [
    "TRANSITIONS",
    "NewLease",
    "acquire_unknown",
    "activate",
    "admit",
    "claim_cleanup",
    "claim_release",
    "cleanup_failed",
    "cleanup_succeeded",
    "complete_release",
    "count_occupying",
    "due_for_cleanup",
    "end_wait",
    "expired",
    "extend",
    "fail_acquire",
    "for_run",
    "get",
    "held_by",
    "insert_intent",
    "interrupted_cleanups",
    "list_all",
    "merge_metadata",
    "release_unproven",
    "resume_refused",
    "retire",
    "set_handle",
    "set_provision_fingerprint",
    "supersede",
    "take_over",
]

WAITING: Final = LeaseStatus.WAITING
ACQUIRING: Final = LeaseStatus.ACQUIRING
ACTIVE: Final = LeaseStatus.ACTIVE
RELEASING: Final = LeaseStatus.RELEASING
RETAINED: Final = LeaseStatus.RETAINED
PENDING_CLEANUP: Final = LeaseStatus.PENDING_CLEANUP
RELEASED: Final = LeaseStatus.RELEASED
EXPIRED: Final = LeaseStatus.EXPIRED
FAILED: Final = LeaseStatus.FAILED

TRANSITIONS: Final[Mapping[LeaseStatus, frozenset[LeaseStatus]]] = {
    # waiting ─slot─► acquiring ; ─wait over, cancelled─► failed | expired
    WAITING: frozenset({ACQUIRING, FAILED, EXPIRED}),
    # acquiring ─ok─► active ; ─effect none─► failed | expired ; ─resume refused─► retained ; ─unknown, takeover─► clean-up
    ACQUIRING: frozenset({ACTIVE, FAILED, EXPIRED, RETAINED, PENDING_CLEANUP}),
    # active ─claim─► releasing ; ─takeover─► clean-up
    ACTIVE: frozenset({RELEASING, PENDING_CLEANUP}),
    # releasing ─destroy proven─► its outcome ; ─keep or stop proven─► retained ; ─unproven, takeover─► clean-up
    RELEASING: frozenset({RELEASED, EXPIRED, FAILED, RETAINED, PENDING_CLEANUP}),
    # retained ─claimed by a run─► released ; ─retention over, drift, operator─► clean-up
    RETAINED: frozenset({RELEASED, PENDING_CLEANUP}),
    # pending_cleanup ─attempt claimed, failed─► pending_cleanup ; ─proven gone─► its outcome
    PENDING_CLEANUP: frozenset({PENDING_CLEANUP, RELEASED, EXPIRED, FAILED}),
    RELEASED: frozenset(),
    EXPIRED: frozenset(),
    FAILED: frozenset(),
}
"""Every allowed change of status."""

DEFAULT_LIFETIME: Final = timedelta(hours=24)


@attrs.frozen(kw_only=True)
class NewLease:
    """What is known of a lease before its driver is called.

    Args:
        context: for whom; its tenant is the lease's.
        holder_id: who answers for it; registered and not fenced.
        config: as stored in the environment, secrets by reference.
        expires_at: when its lifetime ends; None is 24 h from now by the store's clock.
        id: made when not given.
        resource_id: made when not given; a chain keeps it.
        epoch: the fencing number; 1 for a new resource.
        supersedes: the lease before it in the chain.
    """

    context: RunContext
    environment_id: str
    environment_name: str
    driver: str
    provider: str
    holder_id: str
    config: JsonObject = attrs.field(repr=False)
    config_version: int
    policy: LeasePolicy
    transfer: Transfer
    fingerprint: str
    lease_key: str = "default"
    secret_versions: Mapping[str, str] = attrs.field(factory=dict)
    metadata: JsonObject = attrs.field(factory=dict, repr=False)
    expires_at: datetime | None = None
    id: str = attrs.field(factory=lambda: new_id("lease"))
    resource_id: str = attrs.field(factory=new_resource_id)
    epoch: int = 1
    supersedes: str | None = None


# -- statements, built once -------------------------------------------------------------------------------------------


def _p(column: str) -> BindParameter[Any]:
    """A parameter of the column's type; a bare column name is reserved for SQLAlchemy's own."""
    return bindparam(f"p_{column}", type_=table.c[column].type)


_NOW: Final[BindParameter[Any]] = bindparam("p_now", type_=table.c.created_at.type)


def _cas(source: LeaseStatus, **values: Any) -> Update:
    """The compare-and-set: one row of this id and epoch, in this state."""
    status = values.get("status")
    assert not isinstance(status, LeaseStatus) or status in TRANSITIONS[source], "no such transition"  # noqa: S101
    return (
        table.update()
        .where(table.c.id == _p("id"), table.c.epoch == _p("epoch"), table.c.status == source)
        .values(**values)
        .returning(table)
    )


def _ended(**values: Any) -> dict[str, Any]:
    return {"ended_at": _NOW, "cleanup_status": CleanupStatus.SUCCESS, "next_try_at": None, **values}


def _unless_set(column: str) -> ColumnElement[Any]:
    return func.coalesce(table.c[column], _p(column))


def _unless_given(column: str) -> ColumnElement[Any]:
    return func.coalesce(_p(column), table.c[column])


# The outcome's column holds the text of a terminal state.
_OUTCOME: Final[ColumnElement[Any]] = func.coalesce(table.c.outcome, LeaseOutcome.FAILED)
_SETTLED: Final = or_(table.c.not_before.is_(None), table.c.not_before <= _NOW)
_DUE: Final = _SETTLED & or_(table.c.next_try_at.is_(None), table.c.next_try_at <= _NOW)
# Not IN: its list is expanded anew at every execution.
_REUSES: Final = or_(
    table.c.policy == LeasePolicy.REUSE_BY_ENVIRONMENT, table.c.policy == LeasePolicy.REUSE_BY_EXECUTION_WORKSPACE
)
_ORDER: Final = (table.c.created_at, table.c.id)

_INSERT: Final = InsertOrIgnore(table)
_GET: Final = select(table).where(table.c.id == _p("id"))
_FOR_RUN: Final = select(table).where(table.c.tenant == _p("tenant"), table.c.run_id == _p("run_id")).order_by(*_ORDER)
_LIVE_FOR_RUN: Final = _FOR_RUN.where(table.c.status.in_(list(LIVE)))
_FOR_UPDATE: Final = _GET.with_for_update()

_ADMIT = _cas(WAITING, status=ACQUIRING)
_END_WAIT = _cas(WAITING, **_ended(status=_p("outcome"), outcome=_p("outcome"), failure_reason=_p("failure_reason")))
_ACTIVATE = _cas(
    ACQUIRING,
    status=ACTIVE,
    handle=_p("handle"),
    provider_lease_id=_p("provider_lease_id"),
    metadata=_p("metadata"),
    expires_at=_unless_given("expires_at"),
    acquired_at=_NOW,
)
_FAIL_ACQUIRE = _cas(
    ACQUIRING, **_ended(status=_p("outcome"), outcome=_p("outcome"), failure_reason=_p("failure_reason"))
)
_ACQUIRE_UNKNOWN = _cas(
    ACQUIRING,
    status=PENDING_CLEANUP,
    cleanup_status=CleanupStatus.PENDING,
    outcome=_p("outcome"),
    disposition=Disposition.DESTROY,
    failure_reason=_p("failure_reason"),
    not_before=_p("not_before"),
    handle=_unless_given("handle"),
)
_RESUME_REFUSED = _cas(
    ACQUIRING,
    status=RETAINED,
    outcome=LeaseOutcome.FAILED,
    disposition=_p("disposition"),
    retained_for=_p("retained_for"),
    failure_reason=_p("failure_reason"),
    handle=_unless_given("handle"),
)
_SET_METADATA = _cas(ACTIVE, metadata=_p("metadata"))
_SET_PROVISION_FINGERPRINT = _cas(ACTIVE, provision_fingerprint=_p("provision_fingerprint"))
_SET_HANDLE = _cas(ACTIVE, handle=_p("handle"))
_EXTEND = _cas(ACTIVE, expires_at=_p("expires_at"))
_CLAIM_RELEASE_VALUES: Final[dict[str, Any]] = {
    "status": RELEASING,
    "holder_id": _p("holder_id"),
    "outcome": _p("outcome"),
    "disposition": _p("disposition"),
    "failure_reason": _unless_given("failure_reason"),
}
_CLAIM_RELEASE = _cas(ACTIVE, **_CLAIM_RELEASE_VALUES)
_CLAIM_RELEASE_ANY_EPOCH = (
    table.update()
    .where(table.c.id == _p("id"), table.c.status == ACTIVE)
    .values(**_CLAIM_RELEASE_VALUES)
    .returning(table)
)
_COMPLETE_GONE = _cas(RELEASING, **_ended(status=_OUTCOME, handle=None))
_COMPLETE_RETAINED = _cas(
    RELEASING,
    status=RETAINED,
    handle=_unless_given("handle"),
    retained_for=case((_REUSES & (table.c.outcome == LeaseOutcome.RELEASED), "reuse"), else_="inspection"),
).where(table.c.disposition != Disposition.DESTROY)
_RELEASE_UNPROVEN = _cas(
    RELEASING,
    status=PENDING_CLEANUP,
    cleanup_status=CleanupStatus.PENDING,
    disposition=Disposition.DESTROY,
    last_error=_p("last_error"),
    next_try_at=_p("next_try_at"),
)
_RETIRE = _cas(
    RETAINED,
    status=PENDING_CLEANUP,
    cleanup_status=CleanupStatus.PENDING,
    disposition=Disposition.DESTROY,
    outcome=_OUTCOME,
    failure_reason=_unless_set("failure_reason"),
    attempts=0,
    next_try_at=None,
)
_SUPERSEDE = _cas(RETAINED, **_ended(status=RELEASED, superseded_by=_p("superseded_by"), cleanup_status=None))
_ATTEMPT = _cas(PENDING_CLEANUP).where(table.c.attempts == _p("attempts"))
_FORCE_CLEANUP = _ATTEMPT.values(
    attempts=table.c.attempts + 1, holder_id=_p("holder_id"), next_try_at=_p("next_try_at")
)
_CLAIM_CLEANUP = _FORCE_CLEANUP.where(_DUE)
# What was found gone before a late create had to have landed may still come to be: that proves nothing.
_CLEANUP_SUCCEEDED = _cas(
    PENDING_CLEANUP,
    status=case((_SETTLED, _OUTCOME), else_=PENDING_CLEANUP),
    cleanup_status=case((_SETTLED, CleanupStatus.SUCCESS), else_=CleanupStatus.PENDING),
    ended_at=case((_SETTLED, _NOW), else_=None),
    next_try_at=case((_SETTLED, None), else_=table.c.not_before),
    last_error=None,
)
_CLEANUP_FAILED = _ATTEMPT.values(cleanup_status=CleanupStatus.FAILED, last_error=_p("last_error"))


def _held_in(*states: LeaseStatus) -> Update:
    return table.update().where(table.c.holder_id == _p("holder_id"), table.c.status.in_(states))


_TAKE_WAITING = _held_in(WAITING).values(
    **_ended(
        status=FAILED,
        outcome=LeaseOutcome.FAILED,
        epoch=table.c.epoch + 1,
        failure_reason=_unless_set("failure_reason"),
    )
)
_TAKE_OVER = (
    _held_in(ACQUIRING, ACTIVE, RELEASING)
    .values(
        status=PENDING_CLEANUP,
        cleanup_status=CleanupStatus.PENDING,
        disposition=Disposition.DESTROY,
        epoch=table.c.epoch + 1,
        outcome=_OUTCOME,
        failure_reason=_unless_set("failure_reason"),
        # The driver of the dead holder may have sent its create a moment before.
        not_before=case((table.c.status == ACQUIRING, _p("not_before")), else_=table.c.not_before),
        attempts=0,
        next_try_at=None,
    )
    .returning(table)
)

_INTERRUPTED_CLEANUPS = (table.c.holder_id == _p("holder_id")) & (table.c.status == PENDING_CLEANUP) & _SETTLED
_CLEANUP_AT_ONCE = table.update().where(_INTERRUPTED_CLEANUPS).values(next_try_at=None)


# -- acquire ----------------------------------------------------------------------------------------------------------


def insert_intent(conn: Connection, new: NewLease, *, status: LeaseStatus = ACQUIRING) -> Lease:
    """Store the intent to acquire; only after its commit the driver may be called.

    Args:
        conn: of the caller's transaction.
        new: what is known.
        status: ``acquiring``, or ``waiting`` for a slot.

    Raises:
        LeaseExists: this run has a live lease under that key.
        LeaseLost: the holder is fenced or not registered.
        ResourceTaken: another live row names the resource.
    """
    if status not in (WAITING, ACQUIRING):
        raise ValueError(f"a lease begins as waiting or acquiring, not as {status}")
    holders.require_unfenced(conn, new.holder_id, lease_id=new.id)
    row = _INSERT(conn, _intent_values(new, status, clock.now(conn)))
    if row is None:
        raise _why_refused(conn, new)
    return _lease(row)


def _intent_values(new: NewLease, status: LeaseStatus, now: datetime) -> dict[str, Any]:
    context = new.context
    return {
        **_NOTHING_YET,
        "id": new.id,
        "tenant": context.tenant,
        "environment_id": new.environment_id,
        "environment_name": new.environment_name,
        "driver": new.driver,
        "provider": new.provider,
        "lease_key": new.lease_key,
        "run_id": context.run_id,
        "agent_id": context.agent_id,
        "issue_id": context.issue_id,
        "execution_workspace_id": context.execution_workspace_id,
        "execution_workspace_mode": context.execution_workspace_mode,
        "trace": dict(context.trace),
        "policy": new.policy,
        "transfer": new.transfer,
        "status": status,
        "resource_id": new.resource_id,
        "epoch": new.epoch,
        "holder_id": new.holder_id,
        "config": new.config,
        "config_version": new.config_version,
        "secret_versions": dict(new.secret_versions),
        "fingerprint": new.fingerprint,
        "metadata": new.metadata,
        "supersedes": new.supersedes,
        "created_at": now,
        "expires_at": new.expires_at or now + DEFAULT_LIFETIME,
    }


_NOTHING_YET: Final[dict[str, Any]] = {
    **{column.name: None for column in table.c if column.nullable},
    "attempts": 0,
}


def _why_refused(conn: Connection, new: NewLease) -> Exception:
    if new.context.run_id is not None:
        for existing in for_run(conn, new.context.tenant, new.context.run_id):
            if existing.lease_key == new.lease_key and existing.status in HELD:
                return LeaseExists(existing)
    query = select(table).where(or_(table.c.resource_id == new.resource_id, table.c.id == new.id))
    return ResourceTaken(_lease(conn.execute(query.order_by(table.c.epoch.desc()).limit(1)).one()))


def admit(conn: Connection, lease: Lease) -> Lease:
    """A slot is free: waiting → acquiring. The caller has locked the environment and counted.

    Raises:
        LeaseLost: as for every transition: the row moved on.
    """
    return _apply(conn, _ADMIT, lease, "admit")


def end_wait(conn: Connection, lease: Lease, *, reason: str, outcome: LeaseOutcome = LeaseOutcome.FAILED) -> Lease:
    """No slot came, or nobody waits any more: waiting → failed or expired. Nothing was made."""
    return _apply(conn, _END_WAIT, lease, "acquire", p_outcome=_unhappy(outcome), p_failure_reason=reason)


def activate(
    conn: Connection,
    lease: Lease,
    *,
    handle: JsonObject | None,
    provider_lease_id: str | None,
    metadata: JsonObject,
    expires_at: datetime | None,
) -> Lease:
    """The driver has acquired or resumed: acquiring → active.

    Args:
        conn: of the caller's transaction.
        lease: as inserted.
        handle: the driver's.
        provider_lease_id: the provider's name of the resource.
        metadata: put over what the intent holds.
        expires_at: when the provider itself ends it; None keeps the intent's.

    Raises:
        LeaseLost: the row moved on: give the resource back, write nothing.
    """
    return _apply(
        conn,
        _ACTIVATE,
        lease,
        "acquire",
        p_handle=handle,
        p_provider_lease_id=provider_lease_id,
        p_metadata={**lease.metadata, **metadata},
        p_expires_at=expires_at,
    )


def fail_acquire(conn: Connection, lease: Lease, *, reason: str, outcome: LeaseOutcome = LeaseOutcome.FAILED) -> Lease:
    """Nothing was made, for sure: acquiring → failed or expired, clean-up proven."""
    return _apply(conn, _FAIL_ACQUIRE, lease, "acquire", p_outcome=_unhappy(outcome), p_failure_reason=reason)


def acquire_unknown(
    conn: Connection,
    lease: Lease,
    *,
    reason: str,
    outcome: LeaseOutcome,
    not_before: datetime | None,
    handle: JsonObject | None = None,
) -> Lease:
    """Something may have been made, or may still be: acquiring → pending_cleanup.

    Args:
        conn: of the caller's transaction.
        lease: as inserted.
        reason: why it failed.
        outcome: failed or expired.
        not_before: the time after which a late create has landed; only later can absence be proven. None: at once.
        handle: the driver's, where it gave one.
    """
    return _apply(
        conn,
        _ACQUIRE_UNKNOWN,
        lease,
        "acquire",
        p_outcome=_unhappy(outcome),
        p_failure_reason=reason,
        p_not_before=not_before,
        p_handle=handle,
    )


def resume_refused(
    conn: Connection, lease: Lease, *, reason: str, retained_for: str, disposition: Disposition = Disposition.STOP
) -> Lease:
    """The place could not be taken up and is still there: acquiring → retained. The run fails, the place stays.

    Args:
        conn: of the caller's transaction.
        lease: as inserted.
        reason: why.
        retained_for: ``reuse`` when it may be tried again (unavailable), ``inspection`` when not (refused).
        disposition: in what state the place is.
    """
    return _apply(
        conn,
        _RESUME_REFUSED,
        lease,
        "resume",
        p_failure_reason=reason,
        p_retained_for=retained_for,
        p_disposition=disposition,
        p_handle=None,
    )


# -- while active -----------------------------------------------------------------------------------------------------


def merge_metadata(conn: Connection, lease: Lease, patch: JsonObject) -> Lease:
    """Put the patch's keys over those of the active lease's metadata; other keys stay."""
    row = conn.execute(_FOR_UPDATE, {"p_id": lease.id}).one_or_none()
    # A vanished row is reported by the compare-and-set like every other loss.
    merged = {**(row._mapping["metadata"] if row else {}), **patch}
    return _apply(conn, _SET_METADATA, lease, "realize", p_metadata=merged)


def set_provision_fingerprint(conn: Connection, lease: Lease, fingerprint: str | None) -> Lease:
    """Note with what the active lease's workspace was provisioned; None: it has to be done again."""
    return _apply(conn, _SET_PROVISION_FINGERPRINT, lease, "provision", p_provision_fingerprint=fingerprint)


def set_handle(conn: Connection, lease: Lease, handle: JsonObject | None) -> Lease:
    """Store another handle for the active lease."""
    return _apply(conn, _SET_HANDLE, lease, "resume", p_handle=handle)


def extend(conn: Connection, lease: Lease, expires_at: datetime) -> Lease:
    """Give the active lease another end of its lifetime."""
    return _apply(conn, _EXTEND, lease, "extend", p_expires_at=expires_at)


# -- release ----------------------------------------------------------------------------------------------------------


def claim_release(
    conn: Connection,
    lease_id: str,
    epoch: int | None,
    *,
    holder_id: str,
    outcome: LeaseOutcome,
    disposition: Disposition,
    failure_reason: str | None,
) -> Lease:
    """Take the release upon us: active → releasing. Exactly one of several claimers succeeds.

    Args:
        conn: of the caller's transaction.
        lease_id: which.
        epoch: the caller's; None: whatever the active row has.
        holder_id: who releases; becomes the holder.
        outcome: how the lease ends.
        disposition: what becomes of the resource.
        failure_reason: stands above the row's; None keeps the row's.

    Raises:
        LeaseLost: not active, another epoch, no such lease, or the holder is fenced: make no driver call.
    """
    holders.require_unfenced(conn, holder_id, lease_id=lease_id)
    values = {
        "p_id": lease_id,
        "p_holder_id": holder_id,
        "p_outcome": outcome,
        "p_disposition": disposition,
        "p_failure_reason": failure_reason,
    }
    if epoch is None:
        row = conn.execute(_CLAIM_RELEASE_ANY_EPOCH, values).one_or_none()
    else:
        row = conn.execute(_CLAIM_RELEASE, {**values, "p_epoch": epoch}).one_or_none()
    if row is None:
        raise _lost(conn, lease_id, epoch, "release")
    return _lease(row)


def complete_release(conn: Connection, lease: Lease, *, state: ResourceState, handle: JsonObject | None) -> Lease:
    """The driver has proven what is true now: releasing → its outcome (gone), or → retained.

    Args:
        conn: of the caller's transaction.
        lease: as claimed.
        state: from the receipt.
        handle: from the receipt; None keeps the row's where the resource stays.

    Raises:
        LeaseLost: the row moved on; also when the resource stays though it was to be destroyed: that is `release_unproven`.
    """
    if state is ResourceState.GONE:
        return _apply(conn, _COMPLETE_GONE, lease, "release")
    return _apply(conn, _COMPLETE_RETAINED, lease, "release", p_handle=handle)


def release_unproven(conn: Connection, lease: Lease, *, error: str, next_try_at: datetime | None) -> Lease:
    """The release failed, or nobody knows: releasing → pending_cleanup.

    Args:
        conn: of the caller's transaction.
        lease: as claimed.
        error: what the driver said; never a secret.
        next_try_at: when a sweep may try; None: at once.
    """
    return _apply(conn, _RELEASE_UNPROVEN, lease, "release", p_last_error=error, p_next_try_at=next_try_at)


def retire(conn: Connection, lease: Lease, reason: str | None) -> Lease:
    """A kept place is not wanted any more: retained → pending_cleanup. The reason is kept unless the row has one."""
    return _apply(conn, _RETIRE, lease, "release", p_failure_reason=reason)


def supersede(conn: Connection, lease: Lease, new: NewLease) -> Lease:
    """A run takes a kept place up: the row becomes released, and a new one, acquiring, continues the chain.

    Args:
        conn: of the caller's transaction.
        lease: retained for reuse.
        new: the run's; its resource, epoch and ``supersedes`` are set here.

    Returns:
        The new lease: same resource, epoch + 1, with the handle, provider lease id and provision fingerprint of the old.
    """
    _apply(conn, _SUPERSEDE, lease, "resume", p_superseded_by=new.id)
    chained = attrs.evolve(new, resource_id=lease.resource_id, epoch=lease.epoch + 1, supersedes=lease.id)
    insert_intent(conn, chained)
    carried = {name: getattr(lease, name) for name in ("handle", "provider_lease_id", "provision_fingerprint")}
    statement = table.update().where(table.c.id == new.id).values(**carried).returning(table)
    return _lease(conn.execute(statement).one())


# -- clean-up ---------------------------------------------------------------------------------------------------------


def claim_cleanup(
    conn: Connection, lease: Lease, *, holder_id: str, next_try_at: datetime, force: bool = False
) -> Lease:
    """Take one clean-up attempt upon us; of two sweepers that saw the same row, one succeeds.

    Args:
        conn: of the caller's transaction.
        lease: as read; its ``attempts`` is compared.
        holder_id: who tries.
        next_try_at: when the next attempt may be made if this one ends without a word.
        force: also when it is not due (``next_try_at``, ``not_before``): an operator asked.

    Raises:
        LeaseLost: claimed by another, not due, not in clean-up, or the holder is fenced: make no driver call.
    """
    holders.require_unfenced(conn, holder_id, lease_id=lease.id)
    return _apply(
        conn,
        _FORCE_CLEANUP if force else _CLAIM_CLEANUP,
        lease,
        "cleanup",
        p_attempts=lease.attempts,
        p_holder_id=holder_id,
        p_next_try_at=next_try_at,
    )


def cleanup_succeeded(conn: Connection, lease: Lease) -> Lease:
    """The resource is proven gone: pending_cleanup → its outcome.

    Returns:
        The lease. It is **still** pending_cleanup, due at its ``not_before``, when that time has not come yet: a late
        create may still land, so its absence proves nothing.
    """
    return _apply(conn, _CLEANUP_SUCCEEDED, lease, "cleanup")


def cleanup_failed(conn: Connection, lease: Lease, error: str) -> Lease:
    """The claimed attempt failed; the next is made when its claim said. LeaseLost when another attempt was claimed since."""
    return _apply(conn, _CLEANUP_FAILED, lease, "cleanup", p_attempts=lease.attempts, p_last_error=error)


def take_over(
    conn: Connection, holder_id: str, *, reason: str, settle: timedelta = timedelta(seconds=60)
) -> list[Lease]:
    """Fence a holder that is proven dead, then move its leases to clean-up, epoch + 1, all in the caller's transaction.

    The clean-up attempts that it had claimed are due at once: it may have died in the middle of one.

    Args:
        conn: of the caller's transaction.
        holder_id: the dead holder.
        reason: kept where the row has no failure reason.
        settle: how long after now a create that the dead holder had sent may still land.

    Returns:
        The leases that now wait for clean-up; those that only waited for a slot have ended and are not among them.
    """
    holders.fence(conn, holder_id)
    now = clock.now(conn)
    values = {"p_holder_id": holder_id, "p_failure_reason": reason, "p_now": now, "p_not_before": now + settle}
    conn.execute(_TAKE_WAITING, values)
    conn.execute(_CLEANUP_AT_ONCE, values)
    return [_lease(row) for row in conn.execute(_TAKE_OVER, values)]


# -- queries ----------------------------------------------------------------------------------------------------------


def get(conn: Connection, lease_id: str) -> Lease | None:
    """Return the lease of that id."""
    row = conn.execute(_GET, {"p_id": lease_id}).one_or_none()
    return _lease(row) if row else None


def list_all(
    conn: Connection,
    tenant: str | None = None,
    *,
    status: LeaseStatus | Collection[LeaseStatus] | None = None,
    run_id: str | None = None,
    environment_id: str | None = None,
    limit: int | None = None,
) -> list[Lease]:
    """Return leases, oldest first; every argument but ``limit`` narrows. With ``limit`` the newest so many."""
    states = (status,) if isinstance(status, LeaseStatus) else status
    wanted = {"tenant": tenant, "run_id": run_id, "environment_id": environment_id}
    query = select(table).where(*(table.c[name] == value for name, value in wanted.items() if value is not None))
    if states is not None:
        query = query.where(table.c.status.in_(list(states)))
    if limit is None:
        return _all(conn, query.order_by(*_ORDER))
    return _all(conn, query.order_by(*(column.desc() for column in _ORDER)).limit(limit))[::-1]


def for_run(conn: Connection, tenant: str, run_id: str, *, live_only: bool = True) -> list[Lease]:
    """Return a run's leases, oldest first; with ``live_only`` those whose resource may exist."""
    return _all(conn, _LIVE_FOR_RUN if live_only else _FOR_RUN, p_tenant=tenant, p_run_id=run_id)


def due_for_cleanup(conn: Connection, *, limit: int | None = None) -> list[Lease]:
    """Return the leases whose next clean-up attempt may be claimed now, oldest first."""
    query = select(table).where(table.c.status == PENDING_CLEANUP, _DUE).order_by(*_ORDER).limit(limit)
    return _all(conn, query, p_now=clock.now(conn))


def expired(conn: Connection, *, limit: int | None = None) -> list[Lease]:
    """Return the active leases whose lifetime is over, oldest first."""
    query = select(table).where(table.c.status == ACTIVE, table.c.expires_at <= _NOW).order_by(*_ORDER).limit(limit)
    return _all(conn, query, p_now=clock.now(conn))


def held_by(conn: Connection, holder_id: str) -> list[Lease]:
    """Return the leases for which the holder answers: waiting, acquiring, active, releasing."""
    query = select(table).where(table.c.holder_id == holder_id, table.c.status.in_(HELD)).order_by(*_ORDER)
    return _all(conn, query)


def interrupted_cleanups(conn: Connection, holder_id: str) -> list[Lease]:
    """Return the leases whose last clean-up attempt the holder claimed, oldest first; if it is dead they are due."""
    query = select(table).where(_INTERRUPTED_CLEANUPS).order_by(*_ORDER)
    return _all(conn, query, p_holder_id=holder_id, p_now=clock.now(conn))


def count_occupying(conn: Connection, environment_id: str) -> int:
    """Return how many leases take up the environment's capacity: acquiring, active, releasing, clean-up not tried yet.

    Lock the environment first, or two transactions count the same free slot.
    """
    occupying = table.c.status.in_((ACQUIRING, ACTIVE, RELEASING)) | (
        (table.c.status == PENDING_CLEANUP) & (table.c.cleanup_status != CleanupStatus.FAILED)
    )
    query = select(func.count()).select_from(table).where(table.c.environment_id == environment_id, occupying)
    return conn.execute(query).scalar_one()


# -- shared -----------------------------------------------------------------------------------------------------------


def _apply(conn: Connection, statement: Update | Any, lease: Lease, phase: str, **values: Any) -> Lease:
    values |= {"p_id": lease.id, "p_epoch": lease.epoch}
    row = conn.execute(statement, {**values, "p_now": clock.now(conn)}).one_or_none()
    if row is None:
        raise _lost(conn, lease.id, lease.epoch, phase)
    return _lease(row)


def _lost(conn: Connection, lease_id: str, epoch: int | None, phase: str) -> LeaseLost:
    found = get(conn, lease_id)
    if found is None:
        state = "there is no such lease"
    elif epoch is None or found.epoch == epoch:
        state = f"it is {found.status}" + (f", attempt {found.attempts}" if found.attempts else "")
    else:
        state = f"it moved on to epoch {found.epoch} ({found.status}), ours was {epoch}"
    return LeaseLost(f"lease {lease_id} cannot do {phase} for us: {state}", lease_id=lease_id, phase=phase)


def _unhappy(outcome: LeaseOutcome) -> LeaseOutcome:
    if outcome is LeaseOutcome.RELEASED:
        raise ValueError("a lease that was never active ends as failed or expired")
    return outcome


def _all(conn: Connection, query: Select[Any], **values: Any) -> list[Lease]:
    return [_lease(row) for row in conn.execute(query, values)]


_COLUMNS: Final = tuple(column.name for column in table.c)
_CONTEXT_FIELDS: Final = tuple(field.name for field in attrs.fields(RunContext) if field.name != "tenant")


def _lease(row: Row[Any]) -> Lease:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    context = RunContext(tenant=values["tenant"], **{name: values.pop(name) for name in _CONTEXT_FIELDS})
    return Lease(context=context, **values)
