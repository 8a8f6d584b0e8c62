"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Types are spelled out here, not imported: what a revision did must not change with the code.
_TIME = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
_ENUM = sa.String(32)
_JSON = sa.Text()
_HELD = "'waiting', 'acquiring', 'active', 'releasing'"
_LIVE_RESOURCE = sa.text(f"status IN ({_HELD}, 'retained', 'pending_cleanup')")
_LIVE_RUN = sa.text(f"run_id IS NOT NULL AND status IN ({_HELD})")


def upgrade() -> None:
    """Create every table."""
    _meta_and_tenants()
    _environments()
    _execution_workspaces()
    _holders()
    _leases()
    _activity()


def _meta_and_tenants() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("default_environment_id", sa.String(64)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )


def _environments() -> None:
    op.create_table(
        "environments",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("driver", sa.String(255), nullable=False),
        sa.Column("status", _ENUM, nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("env", _JSON, nullable=False),
        sa.Column("policy", _ENUM, nullable=False),
        sa.Column("max_leases", sa.Integer()),
        sa.Column("require_probe", sa.Boolean(), nullable=False),
        sa.Column("timeouts", _JSON, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_environments_tenant_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_environments_tenant_name")),
    )


def _execution_workspaces() -> None:
    op.create_table(
        "execution_workspaces",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("mode", sa.String(255)),
        sa.Column("environment_id", sa.String(64)),
        sa.Column("status", _ENUM, nullable=False),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_execution_workspaces_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_execution_workspaces")),
    )


def _holders() -> None:
    op.create_table(
        "holders",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("host_id", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("pid_namespace", sa.String(64), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("process_started", sa.String(64), nullable=False),
        sa.Column("beat_at", _TIME, nullable=False),
        sa.Column("fenced_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holders")),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("environment_id", sa.String(64), nullable=False),
        sa.Column("environment_name", sa.String(255), nullable=False),
        sa.Column("driver", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("lease_key", sa.String(255), nullable=False),
        sa.Column("run_id", sa.String(255)),
        sa.Column("agent_id", sa.String(255)),
        sa.Column("issue_id", sa.String(255)),
        sa.Column("execution_workspace_id", sa.String(255)),
        sa.Column("execution_workspace_mode", sa.String(255)),
        sa.Column("trace", _JSON, nullable=False),
        sa.Column("policy", _ENUM, nullable=False),
        sa.Column("transfer", sa.String(16), nullable=False),
        sa.Column("status", _ENUM, nullable=False),
        sa.Column("resource_id", sa.String(63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("holder_id", sa.String(64)),
        sa.Column("provider_lease_id", sa.Text()),
        sa.Column("handle", _JSON),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("secret_versions", _JSON, nullable=False),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("provision_fingerprint", sa.String(128)),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column("outcome", _ENUM),
        sa.Column("disposition", _ENUM),
        sa.Column("retained_for", sa.String(16)),
        sa.Column("cleanup_status", _ENUM),
        sa.Column("failure_reason", sa.Text()),
        sa.Column("supersedes", sa.String(64)),
        sa.Column("superseded_by", sa.String(64)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", _TIME),
        sa.Column("not_before", _TIME),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("acquired_at", _TIME),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
    )
    for columns in (
        ("environment_id", "status"),
        ("holder_id", "status"),
        ("status", "next_try_at"),
        ("tenant", "run_id"),
    ):
        op.create_index(op.f("ix_leases_" + "_".join(columns)), "leases", list(columns))
    _unique_lease("uq_leases_live_resource", ["resource_id"], _LIVE_RESOURCE)
    _unique_lease("uq_leases_live_run", ["tenant", "run_id", "lease_key"], _LIVE_RUN)


def _unique_lease(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, "leases", columns, unique=True, sqlite_where=where, postgresql_where=where)


def _activity() -> None:
    op.create_table(
        "activity",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor_type", sa.String(32), nullable=False),
        sa.Column("actor_id", sa.String(255)),
        sa.Column("agent_id", sa.String(255)),
        sa.Column("run_id", sa.String(255)),
        sa.Column("action", sa.String(255), nullable=False),
        sa.Column("entity_type", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(255), nullable=False),
        sa.Column("details", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activity")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_activity_entity_id_id"), "activity", ["entity_id", "id"])
    op.create_index(op.f("ix_activity_tenant_id"), "activity", ["tenant", "id"])
