"""Look at the store without changing it: does it open, can it be written, what is stuck in it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sojourn.errors import SchemaMismatch, StoreCorrupt, StoreError, StoreUnavailable, StoreUnwritable
from sojourn.findings import Finding
from sojourn.hosts import is_dead
from sojourn.records import Holder, Lease, LeaseStatus
from sojourn.store import Store, clock, engine, holders, leases, migrate, schema

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["examine", "open_to_look", "trouble"]

SHOWN = 20
"""So many stuck leases are named one by one."""


# -- opening ----------------------------------------------------------------------------------------------------------


async def open_to_look(url: str | os.PathLike[str] | None) -> tuple[Store | None, list[Finding]]:
    """Open the store if that changes nothing; else say what is there, or why it cannot be opened."""
    try:
        where = engine.locate(url)
        if where.path is not None and (told := _before_opening(where.path)) is not None:
            return None, [told]
        return await Store.open(url), []
    except StoreError as error:
        return None, [trouble(error)]


def trouble(error: StoreError) -> Finding:
    """Return the finding for a store that does not answer."""
    hints: tuple[tuple[type[StoreError], str], ...] = (
        (StoreCorrupt, "put a backup in its place; until then, --store or SOJOURN_STORE name another"),
        (SchemaMismatch, "use the sojourn that it was written by, or --store to name another"),
        (StoreUnavailable, "try again in a moment; nothing is wrong with what is stored"),
        (StoreUnwritable, "make it writable, or use --store"),
    )
    hint = next((hint for kind, hint in hints if isinstance(error, kind)), "name another with --store or SOJOURN_STORE")
    details = {"error": type(error).__name__}
    return Finding(subject="store", level="error", message=str(error), hint=hint, details=details)


def _before_opening(path: Path) -> Finding | None:
    """Say what opening would make or upgrade; None when it would do neither, or would say itself what is wrong."""
    if not os.path.lexists(path):
        return _missing(path)
    found = _peek(path)
    if found is None:
        return None
    revision, is_empty = found
    if is_empty:
        return Finding(subject="store", level="ok", message=f"{path} is empty; the first run fills it")
    if revision != migrate.HEAD and revision in schema.REVISIONS:
        message = f"{path} has schema {revision}; the next command brings it to {migrate.HEAD}"
        hint = "make a copy of it first if older versions of sojourn still use it, then run `sojourn db upgrade`"
        return Finding(subject="store", level="warning", message=message, hint=hint)
    return None


def _missing(path: Path) -> Finding:
    there = next(folder for folder in path.parents if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding(subject="store", level="ok", message=f"{path} is not there yet; the first run makes it")
    message = f"{path} is not there, and cannot be made: {there} cannot be written"
    hint = "make it writable, or name another place with --store or SOJOURN_STORE"
    return Finding(subject="store", level="error", message=message, hint=hint)


def _peek(path: Path) -> tuple[str | None, bool] | None:
    """Return the schema revision and whether there is nothing at all, past the store, which would upgrade it."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, timeout=1.0)) as db:
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "alembic_version" not in tables:
                return None, not tables
            row = db.execute("SELECT version_num FROM alembic_version").fetchone()
            return (row[0] if row else None), False
    except sqlite3.Error:
        return None


# -- looking ----------------------------------------------------------------------------------------------------------


async def examine(store: Store) -> list[Finding]:
    """Look at an open store: writable, schema, size, in its place, holders, stuck leases.

    Raises:
        StoreError: it does not answer.
    """
    findings = [await _writable(store)]
    if not store.in_place:
        message = "was copied or moved since it was made, so sweeps are off"
        hint = (
            "`sojourn db adopt` if it was moved, `sojourn db adopt --new-installation` if the original is still in use"
        )
        findings.append(Finding(subject="store", level="warning", message=message, hint=hint))
    return findings + await store.read(_held)


async def _writable(store: Store) -> Finding:
    revision = await store.read(migrate.revision)
    size = _size_bytes(store)
    details = {"url": store.url, "schema": revision, "bytes": size, "installation_id": store.installation_id}
    message = f"{store.url}, schema {revision}" + (f", {size / 1024:.0f} KiB" if size is not None else "")
    try:
        # A writing transaction takes the write lock, and fails where nothing can be written.
        await store.run(clock.now)
    except StoreError as error:
        return trouble(error)
    return Finding(subject="store", level="ok", message=message, details=details)


def _size_bytes(store: Store) -> int | None:
    path = engine.locate(store.url).path
    if path is None:
        return None
    # What is not merged into the file yet counts as well.
    files = (Path(f"{path}{suffix}") for suffix in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _held(conn: Connection) -> list[Finding]:
    now = clock.now(conn)
    known = holders.list_all(conn)
    gone = {holder.id: why for holder in known if (why := _why_gone(holder)) is not None}
    left = [lease for holder_id in gone for lease in leases.held_by(conn, holder_id)]
    over = [lease for lease in leases.expired(conn) if lease.holder_id not in gone]
    waiting = leases.list_all(conn, status=LeaseStatus.PENDING_CLEANUP)
    active = leases.list_all(conn, status=LeaseStatus.ACTIVE)
    counts = {
        "active": len(active),
        "pending_cleanup": len(waiting),
        "left_behind": len(left),
        "expired": len(over),
        "holders": len(known),
        "holders_gone": len(gone),
    }
    message = f"{len(active)} active, {len(waiting)} waiting for clean-up, {len(known) - len(gone)} holders"
    findings = [Finding(subject="leases", level="ok", message=message, details=counts)]
    findings += _named([_left(lease, gone[lease.holder_id or ""]) for lease in left])
    findings += _named([_over(lease) for lease in over])
    return findings + _named([_waiting(lease, now) for lease in waiting])


def _why_gone(holder: Holder) -> str | None:
    if is_dead(holder):
        return f"a process that is gone (pid {holder.pid})"
    return None if holder.fenced_at is None else "an orchestrator that was closed or shut out"


def _named(found: list[Finding]) -> list[Finding]:
    if len(found) <= SHOWN:
        return found
    rest = f"and {len(found) - SHOWN} more like these"
    return [*found[:SHOWN], Finding(subject="lease", level="warning", message=rest, hint="`sojourn lease list`")]


def _left(lease: Lease, by: str) -> Finding:
    message = f"{lease.id} in environment {lease.environment_name} was left {lease.status} by {by}"
    return _warned(lease, message, "run `sojourn reap`")


def _over(lease: Lease) -> Finding:
    ended = lease.expires_at.isoformat(timespec="seconds")
    message = f"{lease.id} in environment {lease.environment_name} is past its lifetime (till {ended}) and still active"
    return _warned(lease, message, f"run `sojourn reap`, or `sojourn lease extend {lease.id} --by 1h`")


def _waiting(lease: Lease, now: datetime) -> Finding:
    plural = "attempt" if lease.attempts == 1 else "attempts"
    message = f"{lease.id} in environment {lease.environment_name} is not proven gone after {lease.attempts} {plural}"
    message += f": {lease.last_error}" if lease.last_error else ""
    due = lease.next_try_at is None or lease.next_try_at <= now
    command = "sojourn reap" if due else "sojourn reap --force"
    return _warned(lease, message, f"run `{command}`; `sojourn lease show {lease.id}` says more")


def _warned(lease: Lease, message: str, hint: str) -> Finding:
    details = {"lease_id": lease.id, "status": str(lease.status), "resource_id": lease.resource_id}
    return Finding(subject="lease", level="warning", message=message, hint=hint, details=details)
