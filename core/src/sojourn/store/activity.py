"""The record of what happened: append-only, and never in the way of what it records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import SQLAlchemyError

from sojourn.logs import logger
from sojourn.records import ActivityEvent
from sojourn.store import clock
from sojourn.store.dialects import control
from sojourn.store.schema import activity

if TYPE_CHECKING:
    from sojourn.models import JsonObject

__all__ = ["failures", "list_all", "record"]

_log = logger("sojourn.store")
_INSERT = activity.insert().returning(activity)
_SAVEPOINT = "sojourn_activity"
_failures = 0


def failures() -> int:
    """Return how many events this process could not record."""
    return _failures


def record(
    conn: Connection,
    *,
    tenant: str,
    actor_type: str,
    actor_id: str | None,
    agent_id: str | None,
    run_id: str | None,
    action: str,
    entity_type: str,
    entity_id: str,
    details: JsonObject,
) -> ActivityEvent | None:
    """Add an event inside the caller's transaction, under a savepoint of its own.

    Returns:
        The event; None when it could not be recorded: then it alone is undone, logged and counted, and the caller's
        transition stands.
    """
    values = {
        "tenant": tenant,
        "at": clock.now(conn),
        "actor_type": actor_type,
        "actor_id": actor_id,
        "agent_id": agent_id,
        "run_id": run_id,
        "action": action,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "details": dict(details),
    }
    control(conn, f"SAVEPOINT {_SAVEPOINT}")
    try:
        event = _event(conn.execute(_INSERT, values).one())
    except Exception as error:  # noqa: BLE001 - whatever it is, the transition must stand
        _undo(conn, error)
        _note_failure(error, action, entity_id)
        return None
    control(conn, f"RELEASE SAVEPOINT {_SAVEPOINT}")
    return event


def list_all(
    conn: Connection,
    tenant: str,
    *,
    after_id: int = 0,
    entity_id: str | None = None,
    limit: int | None = None,
    newest: bool = False,
) -> list[ActivityEvent]:
    """Return a tenant's events, oldest first.

    Args:
        conn: of the caller's transaction.
        tenant: whose.
        after_id: only events with a greater id: to follow.
        entity_id: only of this entity.
        limit: at most so many.
        newest: with ``limit``, the last ones instead of the first; still oldest first.
    """
    query = select(activity).where(activity.c.tenant == tenant, activity.c.id > after_id).limit(limit)
    if entity_id is not None:
        query = query.where(activity.c.entity_id == entity_id)
    query = query.order_by(activity.c.id.desc() if newest else activity.c.id)
    events = [_event(row) for row in conn.execute(query)]
    return events[::-1] if newest else events


def _undo(conn: Connection, error: Exception) -> None:
    try:
        control(conn, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        control(conn, f"RELEASE SAVEPOINT {_SAVEPOINT}")
    except SQLAlchemyError:
        # A full disk makes SQLite undo the whole transaction, savepoint included: then nothing stands, and the caller
        # has to hear why.
        raise error from None


def _note_failure(error: Exception, action: str, entity_id: str) -> None:
    global _failures
    _failures += 1
    _log.error("activity %s of %s was not recorded: %s", action, entity_id, error, extra={"entity_id": entity_id})


def _event(row: Row[Any]) -> ActivityEvent:
    return ActivityEvent(**row._mapping)
