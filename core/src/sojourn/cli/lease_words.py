"""What a lease's row means in words: its state, who holds it, and what comes next."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sojourn.cli.output import shown

if TYPE_CHECKING:
    from sojourn.records import ActivityEvent, Holder, Lease

__all__ = ["actor", "compact", "held_by", "state_and_next"]


def actor(event: ActivityEvent) -> str:
    """Return who did it."""
    return event.actor_type if event.actor_id is None else f"{event.actor_type} {event.actor_id}"


def compact(details: Any) -> str:
    """Return the details of an event in one cell, without what is not said."""
    known = {name: value for name, value in details.items() if value is not None}
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in known.items())


def held_by(holder: Holder | None) -> str | None:
    """Say which process holds a lease, and whether it is known to be gone."""
    from sojourn.hosts import is_dead, this_process

    if holder is None:
        return None
    here = "this machine" if holder.host_id == this_process().host_id else "another machine"
    state = "gone" if is_dead(holder) else "shut out" if holder.fenced_at is not None else None
    return f"process {holder.pid} on {here}" + (f", which is {state}" if state else "") + f" ({holder.id})"


def state_and_next(found: Lease, holder: Holder | None, now: datetime) -> tuple[str, str | None]:
    """Say what state a lease is in, and what comes next or can be done.

    Args:
        found: its row.
        holder: the row of its holder; None when there is none.
        now: to tell what is due.
    """
    from sojourn.hosts import is_dead
    from sojourn.records import LeaseStatus

    status = found.status
    if status.terminal:
        return f"over since {shown(found.ended_at)}; its place is proven gone", None
    if status is LeaseStatus.PENDING_CLEANUP:
        return _waits_for_clean_up(found, now)
    if status is LeaseStatus.RETAINED:
        return _kept(found)
    if holder is not None and (is_dead(holder) or holder.fenced_at is not None):
        return f"{_going_on(found)}, by a process that is gone", "`sojourn reap` takes it over and gives the place back"
    if status is LeaseStatus.ACTIVE and found.expires_at <= now:
        over = f"past its lifetime, which ended at {shown(found.expires_at)}"
        return over, f"`sojourn reap` ends it, `sojourn lease extend {found.id} --by 1h` gives it more time"
    return _going_on(found), _next_step(found)


def _going_on(found: Lease) -> str:
    return {
        "waiting": f"waits for room in its environment since {shown(found.created_at)}",
        "acquiring": f"its place is being made since {shown(found.created_at)}",
        "active": f"in use since {shown(found.acquired_at)}",
    }.get(str(found.status), "being given back")


def _next_step(found: Lease) -> str | None:
    if str(found.status) != "active":
        return None
    return f"ends with its run, at {shown(found.expires_at)} at the latest; `sojourn lease shell {found.id}` goes there"


def _waits_for_clean_up(found: Lease, now: datetime) -> tuple[str, str]:
    tried = "not tried yet" if not found.attempts else f"tried {found.attempts} time{'s' * (found.attempts != 1)}"
    since = f" since {shown(found.ended_at)}" if found.ended_at else ""
    state = f"waits for clean-up{since}: its place is not proven gone, {tried}"
    if found.next_try_at is None or found.next_try_at <= now:
        return state, "an attempt is due: run `sojourn reap`"
    return state, f"next attempt from {shown(found.next_try_at)} by `sojourn reap`, now by `sojourn reap --force`"


def _kept(found: Lease) -> tuple[str, str]:
    purpose = "the next run that fits" if found.retained_for == "reuse" else "somebody to look at it"
    return f"its place is kept for {purpose}", f"`sojourn lease destroy {found.id}` removes it"
