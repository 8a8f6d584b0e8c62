"""Environments and each tenant's default: stored, named places to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Connection, Row, bindparam, select
from sqlalchemy.exc import IntegrityError

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.ids import new_id
from sojourn.records import Environment, EnvironmentStatus, Lease, LeasePolicy
from sojourn.secrets import Secret
from sojourn.store import clock, leases
from sojourn.store.dialects import InsertOrIgnore
from sojourn.store.errors import DuplicateName
from sojourn.store.schema import LIVE, environments, tenants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.models import JsonObject

__all__ = [
    "default_id",
    "delete",
    "draft_local",
    "ensure_local",
    "ensure_tenant",
    "find",
    "get",
    "insert",
    "list_all",
    "live_leases",
    "lock",
    "set_default",
    "update",
]

LOCAL = "local"

_CHANGEABLE = frozenset(field.name for field in attrs.fields(Environment)) - {
    "id",
    "tenant",
    "created_at",
    "updated_at",
}
_INSERT_TENANT = InsertOrIgnore(tenants)
_INSERT = InsertOrIgnore(environments)
_BY_ID = select(environments).where(environments.c.id == bindparam("p_id"))
_BY_NAME = select(environments).where(
    environments.c.tenant == bindparam("p_tenant"), environments.c.name == bindparam("p_name")
)
_DEFAULT = select(tenants.c.default_environment_id).where(tenants.c.id == bindparam("p_tenant"))


def ensure_local(conn: Connection, tenant: str) -> Environment:
    """Return the tenant's environment named ``local``; it is made when there is none, and left as it is when there is."""
    found = find(conn, tenant, LOCAL)
    if found is None:
        _insert_unless_there(conn, tenant=tenant, name=LOCAL, driver=LOCAL, config={})
        # Read again in either case: another transaction may have been first.
        found = find(conn, tenant, LOCAL)
    assert found is not None, "it was just written"  # noqa: S101
    return found


def draft_local(conn: Connection, tenant: str) -> Environment:
    """Return what `ensure_local` would make; nothing is stored."""
    now = clock.now(conn)
    return Environment(
        id="",
        tenant=tenant,
        name=LOCAL,
        driver=LOCAL,
        status=EnvironmentStatus.ACTIVE,
        config={},
        config_version=1,
        env={},
        policy=LeasePolicy.EPHEMERAL,
        max_leases=None,
        require_probe=False,
        timeouts={},
        description="",
        created_at=now,
        updated_at=now,
    )


def ensure_tenant(conn: Connection, tenant: str) -> None:
    """Make the tenant's row unless it is there."""
    _INSERT_TENANT(conn, {"id": tenant, "created_at": clock.now(conn)})


def insert(
    conn: Connection,
    *,
    tenant: str,
    name: str,
    driver: str,
    config: JsonObject,
    config_version: int = 1,
    env: Mapping[str, str | Secret] | None = None,
    policy: LeasePolicy = LeasePolicy.EPHEMERAL,
    max_leases: int | None = None,
    require_probe: bool = False,
    timeouts: Mapping[str, float] | None = None,
    description: str = "",
) -> Environment:
    """Store a new, active environment.

    Args:
        conn: of the caller's transaction.
        tenant: it belongs to; its row is made as needed.
        name: unique within the tenant.
        driver: the driver's name; not checked here.
        config: with secret references in the place of secrets.
        config_version: of the driver that wrote the config.
        env: variables for every command.
        policy: what becomes of a place when its run is over.
        max_leases: how many leases may be held at a time; None is no limit.
        require_probe: whether a lease needs a good probe first.
        timeouts: seconds per hook.
        description: for people.

    Raises:
        DuplicateName: the tenant has an environment of that name, archived ones included.
    """
    row = _insert_unless_there(
        conn,
        tenant=tenant,
        name=name,
        driver=driver,
        config=config,
        config_version=config_version,
        env=env,
        policy=policy,
        max_leases=max_leases,
        require_probe=require_probe,
        timeouts=timeouts,
        description=description,
    )
    if row is None:
        raise _duplicate(tenant, name)
    return _environment(row)


def _insert_unless_there(
    conn: Connection,
    *,
    tenant: str,
    env: Mapping[str, str | Secret] | None = None,
    timeouts: Mapping[str, float] | None = None,
    **values: Any,
) -> Row[Any] | None:
    ensure_tenant(conn, tenant)
    now = clock.now(conn)
    defaults = {
        "config_version": 1,
        "policy": LeasePolicy.EPHEMERAL,
        "max_leases": None,
        "require_probe": False,
        "description": "",
    }
    fixed = {
        "id": new_id("env"),
        "tenant": tenant,
        "status": EnvironmentStatus.ACTIVE,
        "created_at": now,
        "updated_at": now,
    }
    return _INSERT(conn, {**defaults, **values, **fixed, "env": _env_json(env or {}), "timeouts": dict(timeouts or {})})


def get(conn: Connection, environment_id: str) -> Environment | None:
    """Return the environment of that id, of whatever tenant; the caller compares the tenant."""
    row = conn.execute(_BY_ID, {"p_id": environment_id}).one_or_none()
    return _environment(row) if row else None


def find(conn: Connection, tenant: str, name: str) -> Environment | None:
    """Return the tenant's environment of that name."""
    row = conn.execute(_BY_NAME, {"p_tenant": tenant, "p_name": name}).one_or_none()
    return _environment(row) if row else None


def list_all(conn: Connection, tenant: str, *, include_archived: bool = False) -> list[Environment]:
    """Return the tenant's environments, by name."""
    query = select(environments).where(environments.c.tenant == tenant).order_by(environments.c.name)
    if not include_archived:
        query = query.where(environments.c.status == EnvironmentStatus.ACTIVE)
    return [_environment(row) for row in conn.execute(query)]


def update(conn: Connection, /, environment_id: str, **changes: Any) -> Environment:
    """Change fields of an environment.

    Args:
        conn: of the caller's transaction.
        environment_id: which.
        changes: fields of `Environment` except its id, tenant and times.

    Raises:
        DuplicateName: the tenant has another environment of the new name.
        EnvironmentRunError: ``environment_not_found``.
        TypeError: a field that cannot be changed.
    """
    if unknown := sorted(changes.keys() - _CHANGEABLE):
        raise TypeError(f"an environment's {', '.join(unknown)} cannot be changed")
    values = {**changes, "updated_at": clock.now(conn)}
    if "env" in changes:
        values["env"] = _env_json(changes["env"])
    statement = (
        environments.update().where(environments.c.id == environment_id).values(**values).returning(environments)
    )
    try:
        # A savepoint, for PostgreSQL takes no more statements after an error outside of one.
        with conn.begin_nested():
            row = conn.execute(statement).one_or_none()
    except IntegrityError:
        raise DuplicateName(f"there is another environment named {changes.get('name')!r}") from None
    if row is None:
        raise _not_found(environment_id)
    return _environment(row)


def delete(conn: Connection, environment_id: str) -> None:
    """Remove the environment, also from its tenant's default; its leases' rows stay and suffice for their clean-up."""
    conn.execute(
        tenants.update().where(tenants.c.default_environment_id == environment_id).values(default_environment_id=None)
    )
    conn.execute(environments.delete().where(environments.c.id == environment_id))


def default_id(conn: Connection, tenant: str) -> str | None:
    """Return the id of the tenant's default environment; None when it has none."""
    return conn.execute(_DEFAULT, {"p_tenant": tenant}).scalar_one_or_none()


def set_default(conn: Connection, tenant: str, environment_id: str | None) -> None:
    """Set or clear the tenant's default environment.

    Raises:
        EnvironmentRunError: ``environment_not_found``: no such environment in this tenant.
    """
    if environment_id is not None:
        found = get(conn, environment_id)
        if found is None or found.tenant != tenant:
            raise _not_found(environment_id)
    ensure_tenant(conn, tenant)
    conn.execute(tenants.update().where(tenants.c.id == tenant).values(default_environment_id=environment_id))


def live_leases(conn: Connection, environment_id: str) -> list[Lease]:
    """Return the leases whose resources may exist in the environment, oldest first."""
    return leases.list_all(conn, environment_id=environment_id, status=LIVE)


def lock(conn: Connection, environment_id: str) -> Environment | None:
    """Return the environment and keep other transactions from locking it until ours ends: before counting for capacity."""
    row = conn.execute(_BY_ID.with_for_update(), {"p_id": environment_id}).one_or_none()
    return _environment(row) if row else None


def _environment(row: Row[Any]) -> Environment:
    values = dict(row._mapping)
    values["env"] = {name: _env_value(value) for name, value in values["env"].items()}
    return Environment(**values)


def _env_json(env: Mapping[str, str | Secret]) -> dict[str, Any]:
    # Only the reference: a resolved secret must never reach the database.
    return {name: {"secret": value.reference} if isinstance(value, Secret) else value for name, value in env.items()}


def _env_value(value: str | Mapping[str, str]) -> str | Secret:
    return value if isinstance(value, str) else Secret(value["secret"])


def _duplicate(tenant: str, name: str) -> DuplicateName:
    return DuplicateName(f"tenant {tenant!r} already has an environment named {name!r}")


def _not_found(environment_id: str) -> EnvironmentRunError:
    return EnvironmentRunError(
        ErrorCode.ENVIRONMENT_NOT_FOUND, f"there is no environment {environment_id!r}", environment_id=environment_id
    )
