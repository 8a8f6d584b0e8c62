"""The tables. A change here needs a new revision in ``migrations/versions`` and a new entry in `REVISIONS`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from sojourn.models import Disposition
from sojourn.records import CleanupStatus, EnvironmentStatus, LeaseOutcome, LeasePolicy, LeaseStatus
from sojourn.store.types import EnumText, JsonText, UtcTimestamp

__all__ = [
    "HELD",
    "LIVE",
    "REVISIONS",
    "activity",
    "environments",
    "execution_workspaces",
    "holders",
    "leases",
    "meta",
    "metadata",
    "tenants",
    "use_postgresql",
]

REVISIONS = ("0001",)
"""Every revision, oldest first. The last is what this code works with."""

HELD = (LeaseStatus.WAITING, LeaseStatus.ACQUIRING, LeaseStatus.ACTIVE, LeaseStatus.RELEASING)
"""States in which a holder answers for the lease."""

LIVE = (*HELD, LeaseStatus.RETAINED, LeaseStatus.PENDING_CLEANUP)
"""States in which the resource may exist."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(255), primary_key=True),
    # No foreign key: it would be a circle. `environments.delete` clears it.
    Column("default_environment_id", String(64)),
    Column("created_at", UtcTimestamp, nullable=False),
)

environments = Table(
    "environments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(255), ForeignKey("tenants.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("driver", String(255), nullable=False),
    Column("status", EnumText(EnvironmentStatus), nullable=False),
    Column("config", JsonText, nullable=False),
    Column("config_version", Integer, nullable=False),
    Column("env", JsonText, nullable=False),
    Column("policy", EnumText(LeasePolicy), nullable=False),
    Column("max_leases", Integer),
    Column("require_probe", Boolean, nullable=False),
    Column("timeouts", JsonText, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
    UniqueConstraint("tenant", "name"),
)

execution_workspaces = Table(
    "execution_workspaces",
    metadata,
    Column("tenant", String(255), ForeignKey("tenants.id"), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("mode", String(255)),
    Column("environment_id", String(64)),
    Column("status", EnumText(EnvironmentStatus), nullable=False),
    Column("metadata", JsonText, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
)

holders = Table(
    "holders",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("host_id", String(64), nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("pid_namespace", String(64), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_started", String(64), nullable=False),
    Column("beat_at", UtcTimestamp, nullable=False),
    Column("fenced_at", UtcTimestamp),
)

# No foreign keys: clean-up outlives the environment, the execution workspace and the holder.
leases = Table(
    "leases",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(255), nullable=False),
    Column("environment_id", String(64), nullable=False),
    Column("environment_name", String(255), nullable=False),
    Column("driver", String(255), nullable=False),
    Column("provider", String(255), nullable=False),
    Column("lease_key", String(255), nullable=False),
    Column("run_id", String(255)),
    Column("agent_id", String(255)),
    Column("issue_id", String(255)),
    Column("execution_workspace_id", String(255)),
    Column("execution_workspace_mode", String(255)),
    Column("trace", JsonText, nullable=False),
    Column("policy", EnumText(LeasePolicy), nullable=False),
    Column("transfer", String(16), nullable=False),
    Column("status", EnumText(LeaseStatus), nullable=False),
    Column("resource_id", String(63), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("holder_id", String(64)),
    Column("provider_lease_id", Text),
    Column("handle", JsonText),
    Column("config", JsonText, nullable=False),
    Column("config_version", Integer, nullable=False),
    Column("secret_versions", JsonText, nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("provision_fingerprint", String(128)),
    Column("metadata", JsonText, nullable=False),
    Column("outcome", EnumText(LeaseOutcome)),
    Column("disposition", EnumText(Disposition)),
    Column("retained_for", String(16)),
    Column("cleanup_status", EnumText(CleanupStatus)),
    Column("failure_reason", Text),
    Column("supersedes", String(64)),
    Column("superseded_by", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at", UtcTimestamp),
    Column("not_before", UtcTimestamp),
    Column("last_error", Text),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("acquired_at", UtcTimestamp),
    Column("expires_at", UtcTimestamp, nullable=False),
    Column("ended_at", UtcTimestamp),
    Index(None, "status", "next_try_at"),
    Index(None, "environment_id", "status"),
    Index(None, "tenant", "run_id"),
    Index(None, "holder_id", "status"),
)

activity = Table(
    "activity",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", String(255), nullable=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("actor_type", String(32), nullable=False),
    Column("actor_id", String(255)),
    Column("agent_id", String(255)),
    Column("run_id", String(255)),
    Column("action", String(255), nullable=False),
    Column("entity_type", String(64), nullable=False),
    Column("entity_id", String(255), nullable=False),
    Column("details", JsonText, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "entity_id", "id"),
    # Readers follow by id: a number must never be given out again.
    sqlite_autoincrement=True,
)


def _in(states: tuple[LeaseStatus, ...]) -> str:
    return "status IN (" + ", ".join(f"'{state}'" for state in states) + ")"


def _unique_where(name: str, *columns: str, where: str) -> None:
    # A literal predicate: the migration holds the same text, and a reflected one compares equal.
    Index(name, *(leases.c[c] for c in columns), unique=True, sqlite_where=text(where))


def use_postgresql() -> None:
    """Give the partial indexes their predicates on PostgreSQL, too; needed before anything is created there.

    Apart, because the mere name of the option makes SQLAlchemy load that dialect, and most stores are SQLite.
    """
    for index in leases.indexes:
        predicate = index.dialect_options["sqlite"]["where"]
        if predicate is not None:
            index.dialect_kwargs["postgresql_where"] = predicate


_unique_where("uq_leases_live_resource", "resource_id", where=_in(LIVE))
_unique_where("uq_leases_live_run", "tenant", "run_id", "lease_key", where=f"run_id IS NOT NULL AND {_in(HELD)}")
