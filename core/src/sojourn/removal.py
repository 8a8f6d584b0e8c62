"""Remove an environment: first what would be hit, then, when nothing runs there or it is forced, the row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.records import Environment, Lease, LeaseStatus
from sojourn.run_errors import of_environment
from sojourn.store import environments, workspaces

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["BlastRadius", "blast_radius", "delete_unless_used"]

RUNNING = frozenset({LeaseStatus.WAITING, LeaseStatus.ACQUIRING, LeaseStatus.ACTIVE, LeaseStatus.RELEASING})


@attrs.frozen(kw_only=True)
class BlastRadius:
    """What removing an environment would hit.

    Args:
        environment: that would go.
        active_leases: of runs that use it now; they block unless forced, and are then released first.
        other_leases: retained places and pending clean-ups; their rows suffice for their teardown, so they outlive it.
        selections: who names it: ``tenant default``, ``execution workspace ID``. They are left as they are and then say
            ``environment_not_found``, for nobody but their owner may choose another place for a run.
        secrets: references that its config and variables use; what they name is not touched.
    """

    environment: Environment
    active_leases: tuple[Lease, ...]
    other_leases: tuple[Lease, ...]
    selections: tuple[str, ...]
    secrets: tuple[str, ...]


def blast_radius(conn: Connection, environment: Environment, secrets: tuple[str, ...]) -> BlastRadius:
    """Return what removing ``environment`` would hit; ``secrets`` are the references that it uses."""
    live = environments.live_leases(conn, environment.id)
    named = {environment.id, environment.name}
    selections = [
        f"execution workspace {workspace.id}"
        for workspace in workspaces.list_all(conn, environment.tenant)
        if workspace.environment_id in named
    ]
    if environments.default_id(conn, environment.tenant) == environment.id:
        selections.insert(0, "tenant default")
    return BlastRadius(
        environment=environment,
        active_leases=tuple(lease for lease in live if lease.status in RUNNING),
        other_leases=tuple(lease for lease in live if lease.status not in RUNNING),
        selections=tuple(selections),
        secrets=secrets,
    )


def delete_unless_used(conn: Connection, environment: Environment, secrets: tuple[str, ...]) -> BlastRadius:
    """Delete the row if no run uses the environment; its other leases stay and are cleaned up from their own rows.

    Raises:
        EnvironmentRunError: ``environment_in_use``.
    """
    radius = blast_radius(conn, environment, secrets)
    if radius.active_leases:
        raise in_use(radius)
    environments.delete(conn, environment.id)
    return radius


def in_use(radius: BlastRadius) -> EnvironmentRunError:
    """Return the error for an environment that runs are using."""
    environment = radius.environment
    named = ", ".join(lease.id for lease in radius.active_leases)
    message = (
        f"environment {environment.name!r} is used by {len(radius.active_leases)} active lease(s): {named}. "
        "Wait for them, or force the removal: that ends their commands and releases them first"
    )
    details = {"leases": [lease.id for lease in radius.active_leases]}
    return of_environment(
        ErrorCode.ENVIRONMENT_IN_USE, message, environment, phase="remove", retryable=True, details=details
    )
