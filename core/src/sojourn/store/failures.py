"""What a database error means: one table per database, from its own codes to sojourn's errors."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError, StatementError

from sojourn.errors import StoreCorrupt, StoreError, StoreUnavailable, StoreUnwritable

__all__ = ["is_transient", "refused_value", "translated"]

_Meaning = tuple[type[StoreError], str]

_LOCKED: Final = (StoreUnavailable, "is locked by another writer; try again, or end the process that holds it")
_UNREACHABLE: Final = (StoreUnavailable, "cannot be reached now; check that its server or disk is there and try again")
_READ_ONLY: Final = (StoreUnwritable, "cannot be written; check its permissions, its directory's, and the mount")
_FULL: Final = (StoreUnwritable, "has no space left to write; free some and try again")
_NO_OPEN: Final = (StoreUnwritable, "cannot be opened; check that its directory exists and may be written")
_DAMAGED: Final = (StoreCorrupt, "is damaged; restore a backup, sojourn does not repair it")
_FOREIGN: Final = (StoreCorrupt, "is not a database; name another file, sojourn does not replace it")

# Extended codes first, then primary ones (the low byte).
_SQLITE: Final[dict[int, _Meaning]] = {
    sqlite3.SQLITE_IOERR_WRITE: _FULL,
    sqlite3.SQLITE_IOERR_FSYNC: _FULL,
    sqlite3.SQLITE_IOERR_TRUNCATE: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CANTOPEN: _NO_OPEN,
    sqlite3.SQLITE_IOERR: _UNREACHABLE,
    sqlite3.SQLITE_NOMEM: _UNREACHABLE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _FOREIGN,
}

# SQLSTATE: whole codes first, then classes (the first two characters).
_POSTGRESQL: Final[dict[str, _Meaning]] = {
    "53100": _FULL,
    "25006": _READ_ONLY,
    "42501": _READ_ONLY,
    "55P03": _LOCKED,
    "40001": _LOCKED,
    "40P01": _LOCKED,
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
    "08": _UNREACHABLE,
    "28": _UNREACHABLE,
    "3D": _UNREACHABLE,
    "53": _UNREACHABLE,
    "57": _UNREACHABLE,
}

_TRANSIENT_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
_TRANSIENT_SQLITE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def is_transient(error: SQLAlchemyError) -> bool:
    """Say whether the whole transaction may succeed if it is run again: a lock, a stale snapshot, a lost serialization."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _TRANSIENT_SQLITE
    return _sqlstate(error) in _TRANSIENT_SQLSTATES


def translated(error: SQLAlchemyError, where: str) -> Exception:
    """Return the error to raise ``from`` this one.

    Args:
        error: from SQLAlchemy.
        where: the database for people: a path, or a URL without its password.

    Returns:
        A `StoreError`, or the ValueError or TypeError with which a column's type refused a value.
    """
    if refused := refused_value(error):
        return refused
    kind, advice = _meaning(error)
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()
    return kind(f"store {where} {advice} ({reason[0] if reason else type(error).__name__})")


def refused_value(error: SQLAlchemyError) -> ValueError | TypeError | None:
    """Return the error with which a column's type refused a value, out of SQLAlchemy's wrapping."""
    inner = error.orig if isinstance(error, StatementError) else None
    return inner if isinstance(inner, ValueError | TypeError) else None


def _meaning(error: SQLAlchemyError) -> _Meaning:
    if not isinstance(error, DBAPIError):
        return StoreError, "could not do what was asked"
    if isinstance(error, IntegrityError):
        return StoreError, "refused a row that breaks a rule of its schema"
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        found = _SQLITE.get(code) or _SQLITE.get(code & 0xFF)
    else:
        found = _POSTGRESQL.get(_sqlstate(error)) or _POSTGRESQL.get(_sqlstate(error)[:2])
    if found is None and isinstance(error, OperationalError) and code is None:
        # A connection that never came up has no SQLSTATE.
        found = _UNREACHABLE
    return found or (StoreError, "could not do what was asked")


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
