"""Alembic's environment: runs the revisions on the connection, and in the transaction, that `sojourn.store` hands over."""

from __future__ import annotations

from alembic import context

from sojourn.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place; batch mode copies the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
