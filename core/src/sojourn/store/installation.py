"""Which installation a database belongs to, and whether it is still where it was."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, text

from sojourn import hosts
from sojourn.store.dialects import insert_or_ignore
from sojourn.store.schema import meta

if TYPE_CHECKING:
    from sojourn.store.engine import Location

__all__ = ["adopt", "ensure", "load"]

_INSTALLATION_ID = "installation_id"
_FINGERPRINT = "location_fingerprint"


def load(conn: Connection, location: Location) -> tuple[str, bool] | None:
    """Return the installation id and whether the database is in its place; None before `ensure` was run once."""
    values = {row.key: row.value for row in conn.execute(select(meta.c.key, meta.c.value))}
    if _INSTALLATION_ID not in values or _FINGERPRINT not in values:
        return None
    return values[_INSTALLATION_ID], values[_FINGERPRINT] == fingerprint(conn, location)


def ensure(conn: Connection, location: Location) -> tuple[str, bool]:
    """Give a new database its installation id and note its place; leave an existing one's alone. Returns like `load`."""
    insert_or_ignore(conn, meta, {"key": _INSTALLATION_ID, "value": _new_installation_id()})
    insert_or_ignore(conn, meta, {"key": _FINGERPRINT, "value": fingerprint(conn, location)})
    found = load(conn, location)
    assert found is not None, "both rows were just written"  # noqa: S101
    return found


def adopt(conn: Connection, location: Location, *, new_installation: bool) -> str:
    """Note the present place, with ``new_installation`` also a fresh id; returns the id."""
    ensure(conn, location)
    _set(conn, _FINGERPRINT, fingerprint(conn, location))
    if new_installation:
        _set(conn, _INSTALLATION_ID, _new_installation_id())
    installation_id: str = conn.execute(select(meta.c.value).where(meta.c.key == _INSTALLATION_ID)).scalar_one()
    return installation_id


def fingerprint(conn: Connection, location: Location) -> str:
    """Return what changes when the database is copied or moved, and stays through restarts and fail-over."""
    if location.path is not None:
        # Without device and inode numbers: the first changes between boots, the second in a container's layers.
        place = f"{hosts.machine_id()}\0{location.path.resolve()}"
    else:
        # A restored dump is another database object; a promoted replica has the same.
        row = conn.execute(text("SELECT datname, oid FROM pg_database WHERE datname = current_database()")).one()
        place = f"{row.datname}\0{row.oid}"
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:32]


def _set(conn: Connection, key: str, value: str) -> None:
    conn.execute(meta.update().where(meta.c.key == key).values(value=value))


def _new_installation_id() -> str:
    # Part of labels and names: short, lower case, no separators.
    return secrets.token_hex(6)
