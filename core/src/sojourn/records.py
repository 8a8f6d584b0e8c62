"""Records of the public API: what is stored, and what a plugin sees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from sojourn.models import Disposition, JsonObject, RunContext, Transfer
from sojourn.secrets import Secret

__all__ = [
    "ActivityEvent",
    "AdapterSpec",
    "CleanupStatus",
    "Environment",
    "EnvironmentStatus",
    "ExecutionWorkspace",
    "Holder",
    "Lease",
    "LeaseOutcome",
    "LeasePolicy",
    "LeaseStatus",
    "Operation",
]


class EnvironmentStatus(StrEnum):
    """Whether runs may use an environment."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class LeasePolicy(StrEnum):
    """What becomes of a place when its run is over; fixed at acquire."""

    EPHEMERAL = "ephemeral"
    REUSE_BY_ENVIRONMENT = "reuse_by_environment"
    REUSE_BY_EXECUTION_WORKSPACE = "reuse_by_execution_workspace"
    RETAIN_ON_FAILURE = "retain_on_failure"


class LeaseStatus(StrEnum):
    """Where a lease is in its life; see the state diagram in docs/explanation/leases.md."""

    WAITING = "waiting"
    ACQUIRING = "acquiring"
    ACTIVE = "active"
    RELEASING = "releasing"
    RETAINED = "retained"
    PENDING_CLEANUP = "pending_cleanup"
    RELEASED = "released"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether the lease is over and its clean-up proven."""
        return self in (LeaseStatus.RELEASED, LeaseStatus.EXPIRED, LeaseStatus.FAILED)


class LeaseOutcome(StrEnum):
    """How a lease ended; the terminal states."""

    RELEASED = "released"
    EXPIRED = "expired"
    FAILED = "failed"


class CleanupStatus(StrEnum):
    """Whether the place is proven given back."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class Environment:
    """A stored, named place to run: driver, config, env vars, lease policy, capacity; belongs to a tenant.

    Args:
        config: as stored: plain JSON with secret references, checked against the driver's config class.
        env: variables for every command; a value is text or a `Secret` reference.
        timeouts: seconds per hook (``acquire``, ``realize``, ``release``, ``probe``, ``resume``, ``provision``), over the defaults.
    """

    id: str
    tenant: str
    name: str
    driver: str
    status: EnvironmentStatus
    config: JsonObject
    config_version: int
    env: Mapping[str, str | Secret]
    policy: LeasePolicy
    max_leases: int | None
    require_probe: bool
    timeouts: Mapping[str, float]
    description: str
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class Lease:
    """One run's right to one resource, from acquire to release. A snapshot of its row."""

    id: str
    tenant: str
    environment_id: str
    environment_name: str
    driver: str
    provider: str
    lease_key: str
    context: RunContext
    policy: LeasePolicy
    transfer: Transfer
    status: LeaseStatus
    resource_id: str
    epoch: int
    holder_id: str | None
    provider_lease_id: str | None
    handle: JsonObject | None = attrs.field(repr=False)
    config: JsonObject = attrs.field(repr=False)
    config_version: int
    secret_versions: Mapping[str, str]
    fingerprint: str
    provision_fingerprint: str | None
    metadata: JsonObject = attrs.field(repr=False)
    outcome: LeaseOutcome | None
    disposition: Disposition | None
    retained_for: str | None
    cleanup_status: CleanupStatus | None
    failure_reason: str | None
    supersedes: str | None
    superseded_by: str | None
    attempts: int
    next_try_at: datetime | None
    not_before: datetime | None
    last_error: str | None
    created_at: datetime
    acquired_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None

    @property
    def remote_cwd(self) -> str | None:
        """The root that the driver named at acquire or realize; blank counts as none."""
        value = self.metadata.get("remote_cwd")
        return value.strip() or None if isinstance(value, str) else None


@attrs.frozen(kw_only=True)
class ExecutionWorkspace:
    """A durable record of a working tree that several runs may share; ``mode`` is the host application's word."""

    id: str
    tenant: str
    mode: str | None
    environment_id: str | None
    status: EnvironmentStatus
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class Holder:
    """An orchestrator that owns leases: which host and process it is, and when it was last seen."""

    id: str
    host_id: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_started: str
    beat_at: datetime
    fenced_at: datetime | None


@attrs.frozen(kw_only=True)
class ActivityEvent:
    """One line of the record of what happened; append-only."""

    id: int
    tenant: str
    at: datetime
    actor_type: str
    actor_id: str | None
    agent_id: str | None
    run_id: str | None
    action: str
    entity_type: str
    entity_id: str
    details: JsonObject


@attrs.frozen(kw_only=True)
class AdapterSpec:
    """What a host application runs in an environment. ``transports`` None: it runs anywhere."""

    type: str
    transports: frozenset[str] | None = None


@attrs.frozen(kw_only=True)
class Operation:
    """What a plugin is asked about or wraps: which step, for whom, where. No config, env, argv or output in it."""

    name: str
    tenant: str
    environment_id: str | None
    driver: str | None
    lease_id: str | None
    context: RunContext | None
    actor_type: str
    details: Mapping[str, Any] = attrs.field(factory=dict)
