"""What applying a declaration changes in the store, and doing it: all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from sojourn import wire
from sojourn.declarations import Declaration, DeclaredEnvironment
from sojourn.errors import SojournError
from sojourn.records import Environment, EnvironmentStatus
from sojourn.store import environments

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Change", "PlanChanged", "apply_changes", "changed_fields", "declared_values", "plan_changes"]


class PlanChanged(SojournError):
    """What is stored is not what it was when the changes were planned; nothing was changed. Plan again."""


@attrs.frozen(kw_only=True)
class Change:
    """What applying a declaration does to one environment.

    Args:
        name: of the environment.
        action: what is done.
        fields: for an update, field → (stored, declared), as plain JSON; a field of an object is ``config.key``, and what is
            not said is None.
    """

    name: str
    action: Literal["create", "update", "unchanged"]
    fields: Mapping[str, tuple[Any, Any]] = attrs.field(factory=dict)


def plan_changes(
    declaration: Declaration, stored: Sequence[Environment], config_versions: Mapping[str, int] | None = None
) -> list[Change]:
    """Compare a declaration with what is stored. What is stored and not declared is left alone.

    Args:
        declaration: as read and checked.
        stored: the tenant's environments, archived ones included.
        config_versions: of the installed drivers, by name; a config that was stored with another version is stored anew.
    """
    by_name = {environment.name: environment for environment in stored}
    changes = []
    for name, declared in declaration.environments.items():
        before = by_name.get(name)
        if before is None:
            changes.append(Change(name=name, action="create"))
            continue
        fields = _differences(before, declared, (config_versions or {}).get(declared.driver))
        changes.append(Change(name=name, action="update" if fields else "unchanged", fields=fields))
    return changes


def apply_changes(
    conn: Connection,
    tenant: str,
    declaration: Declaration,
    planned: Sequence[Change],
    config_versions: Mapping[str, int],
) -> None:
    """Store what was planned, in the caller's transaction.

    Raises:
        PlanChanged: somebody changed an environment since.
    """
    stored = environments.list_all(conn, tenant, include_archived=True)
    if plan_changes(declaration, stored, config_versions) != list(planned):
        raise PlanChanged(
            "the stored environments were changed meanwhile; nothing was applied. Look at the changes again"
        )
    ids = {environment.name: environment.id for environment in stored}
    for change in planned:
        declared = declaration.environments[change.name]
        values = {**declared_values(declared), "config_version": config_versions[declared.driver]}
        if change.action == "create":
            environments.insert(conn, tenant=tenant, name=change.name, **values)
        elif change.action == "update":
            environments.update(conn, ids[change.name], status=EnvironmentStatus.ACTIVE, **values)


def declared_values(declared: DeclaredEnvironment) -> dict[str, Any]:
    """Return the fields of a declared environment by name, as `Environments.create` and ``update`` take them."""
    values = {field.name: getattr(declared, field.name) for field in attrs.fields(DeclaredEnvironment)}
    return values | {name: dict(values[name]) for name in ("config", "env", "timeouts")}


def _differences(
    stored: Environment, declared: DeclaredEnvironment, config_version: int | None
) -> dict[str, tuple[Any, Any]]:
    plain_stored, plain_declared = wire.dump(stored), wire.dump(declared)
    before = {name: plain_stored[name] for name in plain_declared}
    differences = dict(changed_fields(before, plain_declared))
    if config_version is not None and stored.config_version != config_version:
        differences["config_version"] = (stored.config_version, config_version)
    if stored.status is not EnvironmentStatus.ACTIVE:
        differences["status"] = (str(stored.status), str(EnvironmentStatus.ACTIVE))
    return differences


def changed_fields(
    before: Mapping[str, Any], after: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield (dotted field, (before, after)) for each that differs; a reference to a secret is one value."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        field = f"{path}.{name}" if path else name
        if isinstance(old, Mapping) and isinstance(new, Mapping) and {"secret"} not in (set(old), set(new)):
            yield from changed_fields(old, new, field)
        elif (old, name in before, type(old)) != (new, name in after, type(new)) and not _same_number(old, new):
            yield field, (old, new)


def _same_number(old: object, new: object) -> bool:
    return type(old) in (int, float) and type(new) in (int, float) and old == new
