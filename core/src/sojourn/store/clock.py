"""The store's clock: one for all holders that share a database, never the caller's."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from sojourn.store.types import UtcTimestamp

__all__ = ["now"]

# Not now(): that stands still inside a transaction.
_CLOCK_TIMESTAMP = select(func.clock_timestamp(type_=UtcTimestamp()))


def now(conn: Connection) -> datetime:
    """Return the present time, aware, UTC: the host's on SQLite (one host by nature), the server's elsewhere."""
    if conn.dialect.name == "sqlite":
        return datetime.now(UTC)
    return conn.execute(_CLOCK_TIMESTAMP).scalar_one()
