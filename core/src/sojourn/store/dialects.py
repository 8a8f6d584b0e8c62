"""The one place for SQL that SQLite and PostgreSQL spell alike but SQLAlchemy keeps apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Table
    from sqlalchemy.sql.dml import ReturningInsert

__all__ = ["InsertOrIgnore", "control", "insert_or_ignore"]


class InsertOrIgnore:
    """``INSERT … ON CONFLICT DO NOTHING RETURNING *`` into one table, built once per kind of database.

    No row comes back when any unique rule of the table would be broken; unlike an integrity error this leaves the
    transaction usable on PostgreSQL.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._statements: dict[str, ReturningInsert[Any]] = {}

    def statement(self, dialect_name: str) -> ReturningInsert[Any]:
        """Return the statement for ``conn.dialect.name``."""
        if dialect_name not in self._statements:
            statement = _insert(dialect_name)(self._table).on_conflict_do_nothing().returning(self._table)
            self._statements[dialect_name] = statement
        return self._statements[dialect_name]

    def __call__(self, conn: Connection, values: Mapping[str, Any]) -> Any | None:
        """Insert; return the row, or None when it was refused."""
        return conn.execute(self.statement(conn.dialect.name), dict(values)).one_or_none()


def _insert(dialect_name: str) -> Callable[[Table], Any]:
    """Import one dialect only: PostgreSQL's costs as much as a fifth of SQLAlchemy."""
    if dialect_name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert
    from sqlalchemy.dialects import postgresql

    return postgresql.insert


def insert_or_ignore(conn: Connection, table: Table, values: Mapping[str, Any]) -> Any | None:
    """Insert one row into a table that is seldom written; return it, or None when it was there."""
    return InsertOrIgnore(table)(conn, values)


def control(conn: Connection, statement: str) -> None:
    """Run a word about the transaction, like BEGIN or SAVEPOINT, straight in the driver.

    Through SQLAlchemy it costs as much as a query, and each transition has several of them.

    Raises:
        OperationalError: SQLAlchemy's, as if it had run the statement.
    """
    raw: Any = conn.connection.dbapi_connection
    try:
        raw.execute(statement)
    except conn.dialect.loaded_dbapi.Error as error:
        raise OperationalError(statement, {}, error) from error
