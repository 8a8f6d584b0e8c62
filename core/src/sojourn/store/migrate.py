"""Which schema a database has, and how it gets ours; Alembic is imported only when a revision has to run."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from sojourn.errors import SchemaMismatch
from sojourn.store.schema import REVISIONS, metadata

__all__ = ["create", "prepare", "revision", "upgrade"]

HEAD = REVISIONS[-1]
_VERSION_TABLE = "alembic_version"


def revision(conn: Connection) -> str | None:
    """Return the database's schema revision; None when it holds no table of ours."""
    if not inspect(conn).has_table(_VERSION_TABLE):
        return None
    return conn.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def prepare(conn: Connection, where: str) -> None:
    """Bring an SQLite database to our schema, or say why not; to be run in a writing transaction.

    Args:
        conn: in a transaction that holds the write lock, so that of several processes one does it.
        where: the database for people.

    Raises:
        SchemaMismatch: newer than this sojourn, or not sojourn's, or older on a database that is upgraded by hand.
    """
    found = revision(conn)
    if found == HEAD:
        return
    check_known(found, where)
    if conn.dialect.name != "sqlite":
        raise SchemaMismatch(f"store {where} has schema {found or 'none'}, not {HEAD}; run: sojourn db upgrade")
    upgrade(conn, where)


def upgrade(conn: Connection, where: str) -> None:
    """Create or upgrade the schema inside the caller's transaction.

    Raises:
        SchemaMismatch: newer than this sojourn, or not sojourn's.
    """
    found = revision(conn)
    check_known(found, where)
    if found is None:
        if inspect(conn).get_table_names():
            raise SchemaMismatch(f"store {where} holds tables that are not sojourn's; name another database")
        create(conn)
    elif found != HEAD:
        _run_alembic(conn)


def check_known(found: str | None, where: str) -> None:
    """Refuse a revision that this code has never heard of: only a newer sojourn can have written it."""
    if found is not None and found not in REVISIONS:
        raise SchemaMismatch(
            f"store {where} was written by a newer sojourn (schema {found}, this one knows {HEAD}); upgrade sojourn, "
            f"or name another store with SOJOURN_STORE"
        )


def create(conn: Connection) -> None:
    """Create every table and note the revision: what the revisions give, without importing Alembic (a test compares)."""
    metadata.create_all(conn)
    conn.execute(
        text(
            f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {_VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    conn.execute(text(f"INSERT INTO {_VERSION_TABLE} (version_num) VALUES (:head)"), {"head": HEAD})  # noqa: S608


def _run_alembic(conn: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # A percent sign in the path would be read as an interpolation.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
