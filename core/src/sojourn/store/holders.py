"""Holders: the orchestrators that own leases, when they were last seen, and whether they were fenced off."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, select

from sojourn.errors import LeaseLost
from sojourn.records import Holder
from sojourn.store import clock
from sojourn.store.dialects import InsertOrIgnore
from sojourn.store.errors import DuplicateName
from sojourn.store.schema import HELD, holders, leases
from sojourn.store.types import UtcTimestamp

__all__ = ["beat", "fence", "get", "list_all", "register", "remove", "require_unfenced"]

_INSERT = InsertOrIgnore(holders)
_BY_ID = select(holders).where(holders.c.id == bindparam("p_id"))
# The lock makes us wait for a takeover that is fencing this holder, and it for us; SQLite has one writer anyway.
_FENCED_AT = select(holders.c.fenced_at).where(holders.c.id == bindparam("p_id")).with_for_update(read=True)
_UNFENCED = holders.update().where(holders.c.id == bindparam("p_id"), holders.c.fenced_at.is_(None))
_BEAT = _UNFENCED.values(beat_at=bindparam("p_now", type_=UtcTimestamp()))
_FENCE = _UNFENCED.values(fenced_at=bindparam("p_now", type_=UtcTimestamp()))


def register(conn: Connection, holder: Holder) -> Holder:
    """Store a new holder, alive now by the store's clock; returns it as stored.

    Raises:
        DuplicateName: there is a holder of that id.
    """
    row = _INSERT(
        conn,
        {
            "id": holder.id,
            "host_id": holder.host_id,
            "boot_id": holder.boot_id,
            "pid_namespace": holder.pid_namespace,
            "pid": holder.pid,
            "process_started": holder.process_started,
            "beat_at": clock.now(conn),
            "fenced_at": None,
        },
    )
    if row is None:
        raise DuplicateName(f"there is a holder {holder.id!r} already")
    return _holder(row)


def get(conn: Connection, holder_id: str) -> Holder | None:
    """Return the holder of that id."""
    row = conn.execute(_BY_ID, {"p_id": holder_id}).one_or_none()
    return _holder(row) if row else None


def list_all(conn: Connection) -> list[Holder]:
    """Return every holder, by id."""
    return [_holder(row) for row in conn.execute(select(holders).order_by(holders.c.id))]


def beat(conn: Connection, holder_id: str) -> bool:
    """Note that the holder lives; False when it was fenced off or removed, which is for ever."""
    return conn.execute(_BEAT, {"p_id": holder_id, "p_now": clock.now(conn)}).rowcount == 1


def fence(conn: Connection, holder_id: str) -> bool:
    """Shut the holder out for ever; False when it was already, or is not there."""
    return conn.execute(_FENCE, {"p_id": holder_id, "p_now": clock.now(conn)}).rowcount == 1


def remove(conn: Connection, holder_id: str) -> bool:
    """Remove the holder if it answers for no lease; returns whether it did."""
    # Locked first, so that no lease is taken under it between the look and the removal.
    conn.execute(_BY_ID.with_for_update(), {"p_id": holder_id})
    held = exists().where(leases.c.holder_id == holder_id, leases.c.status.in_(HELD))
    return conn.execute(holders.delete().where(holders.c.id == holder_id, ~held)).rowcount == 1


def require_unfenced(conn: Connection, holder_id: str, *, lease_id: str | None = None) -> None:
    """Check that the holder may take leases, and that this stays so until the transaction ends.

    Raises:
        LeaseLost: it was fenced off, or is not there.
    """
    row = conn.execute(_FENCED_AT, {"p_id": holder_id}).one_or_none()
    if row is None or row.fenced_at is not None:
        state = "is not registered" if row is None else "was fenced off"
        raise LeaseLost(f"holder {holder_id} {state}; it may take no lease, open a new orchestrator", lease_id=lease_id)


def _holder(row: Row[Any]) -> Holder:
    return Holder(**row._mapping)
