"""Execution workspaces: durable records of working trees that several runs may share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Connection, Row, select

from sojourn.ids import new_id
from sojourn.records import EnvironmentStatus, ExecutionWorkspace
from sojourn.store import clock, environments
from sojourn.store.dialects import InsertOrIgnore
from sojourn.store.errors import DuplicateName, RecordNotFound
from sojourn.store.schema import execution_workspaces as table

if TYPE_CHECKING:
    from sojourn.models import JsonObject

__all__ = ["get", "insert", "list_all", "merge_metadata", "update"]

_CHANGEABLE = frozenset(f.name for f in attrs.fields(ExecutionWorkspace)) - {"id", "tenant", "created_at", "updated_at"}
_INSERT = InsertOrIgnore(table)


def insert(
    conn: Connection,
    *,
    tenant: str,
    mode: str | None = None,
    environment_id: str | None = None,
    metadata: JsonObject | None = None,
    workspace_id: str | None = None,
) -> ExecutionWorkspace:
    """Store a new execution workspace.

    Args:
        conn: of the caller's transaction.
        tenant: it belongs to; its row is made as needed.
        mode: the host application's word.
        environment_id: that its runs choose, or None.
        metadata: free.
        workspace_id: the host application's id for it, unique within the tenant; None makes one.

    Raises:
        DuplicateName: the tenant has one of that id.
    """
    environments.ensure_tenant(conn, tenant)
    now = clock.now(conn)
    values = {
        "id": workspace_id or new_id("ews"),
        "tenant": tenant,
        "mode": mode,
        "environment_id": environment_id,
        "status": EnvironmentStatus.ACTIVE,
        "metadata": dict(metadata or {}),
        "created_at": now,
        "updated_at": now,
    }
    row = _INSERT(conn, values)
    if row is None:
        raise DuplicateName(f"tenant {tenant!r} already has an execution workspace {workspace_id!r}")
    return _workspace(row)


def get(conn: Connection, tenant: str, workspace_id: str) -> ExecutionWorkspace | None:
    """Return the tenant's execution workspace of that id."""
    row = conn.execute(select(table).where(*_key(tenant, workspace_id))).one_or_none()
    return _workspace(row) if row else None


def list_all(conn: Connection, tenant: str) -> list[ExecutionWorkspace]:
    """Return the tenant's execution workspaces, oldest first."""
    query = select(table).where(table.c.tenant == tenant).order_by(table.c.created_at, table.c.id)
    return [_workspace(row) for row in conn.execute(query)]


def update(conn: Connection, /, tenant: str, workspace_id: str, **changes: Any) -> ExecutionWorkspace:
    """Change fields of an execution workspace, except its id, tenant and times.

    Raises:
        RecordNotFound: the tenant has none of that id.
        TypeError: a field that cannot be changed.
    """
    if unknown := sorted(changes.keys() - _CHANGEABLE):
        raise TypeError(f"an execution workspace's {', '.join(unknown)} cannot be changed")
    values = {**changes, "updated_at": clock.now(conn)}
    statement = table.update().where(*_key(tenant, workspace_id)).values(**values).returning(table)
    row = conn.execute(statement).one_or_none()
    if row is None:
        raise _not_found(workspace_id)
    return _workspace(row)


def merge_metadata(conn: Connection, tenant: str, workspace_id: str, patch: JsonObject) -> ExecutionWorkspace:
    """Put the patch's keys over those of the metadata; other keys stay.

    Raises:
        RecordNotFound: the tenant has none of that id.
    """
    query = select(table.c.metadata).where(*_key(tenant, workspace_id)).with_for_update()
    found = conn.execute(query).scalar_one_or_none()
    if found is None:
        raise _not_found(workspace_id)
    return update(conn, tenant, workspace_id, metadata={**found, **patch})


def _key(tenant: str, workspace_id: str) -> tuple[Any, Any]:
    return table.c.tenant == tenant, table.c.id == workspace_id


def _workspace(row: Row[Any]) -> ExecutionWorkspace:
    return ExecutionWorkspace(**row._mapping)


def _not_found(workspace_id: str) -> RecordNotFound:
    return RecordNotFound(f"there is no execution workspace {workspace_id!r}")
