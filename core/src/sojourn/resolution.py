"""Which environment a run uses: the levels in their order, the choice, and the trace of why."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Literal

import attrs

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.records import AdapterSpec, Environment, EnvironmentStatus
from sojourn.store import environments, workspaces

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["UNSET", "LevelTrace", "Resolution", "Selection", "Unset", "choose", "fits"]

LOCAL = "local"


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET = Unset.UNSET
"""The level says nothing. For ``Selection.agent`` this differs from None, which means "deliberately local"."""


@attrs.frozen(kw_only=True)
class Selection:
    """What each level says about the environment, as an id or a name; the first that says something decides.

    Args:
        requested: asked for by hand, e.g. ``--env``.
        execution_workspace: the execution workspace's config; where this is None, the stored execution workspace's.
        issue: the issue's settings.
        project: the project's policy.
        project_policy_enabled: a disabled policy does not count.
        agent: the agent's default; an explicit None means "deliberately local".
    """

    requested: str | None = None
    execution_workspace: str | None = None
    issue: str | None = None
    project: str | None = None
    project_policy_enabled: bool = True
    agent: str | Unset | None = UNSET


@attrs.frozen(kw_only=True)
class LevelTrace:
    """What became of one level: chosen, passed over (says nothing or does not count), or not reached."""

    level: str
    verdict: Literal["chosen", "passed over", "not reached"]
    value: str | None
    reason: str


@attrs.frozen(kw_only=True)
class Resolution:
    """The chosen environment, the level that chose it, and the trace."""

    environment: Environment
    level: str
    trace: tuple[LevelTrace, ...]
    adapter: AdapterSpec


def choose(
    conn: Connection,
    tenant: str,
    selection: Selection,
    execution_workspace_id: str | None,
    adapter: AdapterSpec,
    *,
    ensure: bool,
) -> Resolution:
    """Return the environment that ``selection`` names.

    Args:
        conn: of the caller's transaction.
        tenant: whose environments.
        selection: what each level says.
        execution_workspace_id: whose stored choice counts where the selection's is silent.
        adapter: what will run there.
        ensure: make the tenant's local environment when it is the answer and is not stored yet; else the answer is a draft
            without an id, and the transaction may be a reading one.

    Raises:
        EnvironmentRunError: ``environment_not_found`` or ``environment_inactive``.
    """
    trace: list[LevelTrace] = []
    chosen: tuple[str, Environment] | None = None
    for level, value, silence in _levels(conn, tenant, selection, execution_workspace_id):
        if chosen:
            trace.append(LevelTrace(level=level, verdict="not reached", value=value, reason=f"{chosen[0]} decided"))
        elif silence:
            trace.append(LevelTrace(level=level, verdict="passed over", value=value, reason=silence))
        else:
            chosen = (level, _find(conn, tenant, level, value, ensure=ensure))
            reason = "no level above names one" if level == LOCAL else "names it"
            if value is None and level != LOCAL:
                reason = "deliberately local"
            trace.append(LevelTrace(level=level, verdict="chosen", value=chosen[1].name, reason=reason))
    assert chosen is not None  # noqa: S101 - the last level always answers
    return Resolution(environment=chosen[1], level=chosen[0], trace=tuple(trace), adapter=adapter)


def _levels(
    conn: Connection, tenant: str, selection: Selection, execution_workspace_id: str | None
) -> list[tuple[str, str | None, str]]:
    """Return (level, value, why it is silent or "") in the order of their priority."""
    workspace = selection.execution_workspace or _stored_choice(conn, tenant, execution_workspace_id)
    said = [
        ("requested", selection.requested),
        ("execution workspace", workspace),
        ("issue", selection.issue),
        ("project", selection.project),
    ]
    levels = [(level, value, "" if value else "names no environment") for level, value in said]
    if selection.project and not selection.project_policy_enabled:
        levels[-1] = ("project", selection.project, "its policy is disabled")
    if selection.agent is UNSET:
        levels.append(("agent", None, "has no default"))
    else:
        levels.append(("agent", selection.agent, ""))
    default = environments.default_id(conn, tenant)
    levels.append(("tenant", default, "" if default else "has no default"))
    levels.append((LOCAL, None, ""))
    return levels


def _stored_choice(conn: Connection, tenant: str, execution_workspace_id: str | None) -> str | None:
    if execution_workspace_id is None:
        return None
    stored = workspaces.get(conn, tenant, execution_workspace_id)
    return stored.environment_id if stored else None


def _find(conn: Connection, tenant: str, level: str, value: str | None, *, ensure: bool) -> Environment:
    found = _local(conn, tenant, ensure=ensure) if value is None else _named(conn, tenant, level, value, ensure=ensure)
    return _active(found, level)


def _active(environment: Environment, level: str) -> Environment:
    if environment.status is not EnvironmentStatus.ACTIVE:
        raise EnvironmentRunError(
            ErrorCode.ENVIRONMENT_INACTIVE,
            f"environment {environment.name!r} is {environment.status}, not active (named by: {level}). "
            "Choose another one, or make it active again",
            environment_id=environment.id,
            driver=environment.driver,
            phase="resolve",
            details={"id": environment.id, "driver": environment.driver, "status": str(environment.status)},
        )
    return environment


def _local(conn: Connection, tenant: str, *, ensure: bool) -> Environment:
    found = environments.find(conn, tenant, LOCAL)
    if found is not None:
        return found
    return environments.ensure_local(conn, tenant) if ensure else environments.draft_local(conn, tenant)


def _named(conn: Connection, tenant: str, level: str, value: str, *, ensure: bool) -> Environment:
    environment = environments.get(conn, value)
    if environment is not None and environment.tenant != tenant:
        raise _not_found(f"environment {value!r} does not belong to tenant {tenant!r} (named by: {level})", value)
    environment = environment or environments.find(conn, tenant, value)
    if environment is None and value == LOCAL:
        environment = _local(conn, tenant, ensure=ensure)
    if environment is None:
        known = ", ".join(sorted(e.name for e in environments.list_all(conn, tenant))) or "none yet"
        raise _not_found(f"no environment {value!r} (named by: {level}). There are: {known}", value)
    return environment


def _not_found(message: str, value: str) -> EnvironmentRunError:
    return EnvironmentRunError(
        ErrorCode.ENVIRONMENT_NOT_FOUND, message, phase="resolve", details={"environment": value}
    )


def fits(adapter: AdapterSpec, environment: Environment, transport: str) -> None:
    """Check that ``adapter`` can run over ``transport``.

    Raises:
        EnvironmentRunError: ``unsupported_adapter_environment``, before anything is leased.
    """
    if adapter.transports is not None and transport not in adapter.transports:
        able = ", ".join(sorted(adapter.transports)) or "none"
        raise EnvironmentRunError(
            ErrorCode.UNSUPPORTED_ADAPTER_ENVIRONMENT,
            f"adapter {adapter.type!r} cannot run in environment {environment.name!r}: its transport is {transport!r}, "
            f"the adapter runs over {able}",
            environment_id=environment.id,
            driver=environment.driver,
            phase="resolve",
        )


def foreign(environment: Environment, tenant: str) -> EnvironmentRunError:
    """Return the error for an environment or a run of another tenant; it discloses nothing else."""
    return _not_found(f"environment {environment.id!r} or the run does not belong to tenant {tenant!r}", environment.id)
