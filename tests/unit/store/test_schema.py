"""One schema, whoever makes it; and statements that PostgreSQL understands too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from sojourn.errors import SchemaMismatch
from sojourn.store import Store, activity, clock, holders, leases, migrate, schema
from sojourn.store import environments as environments_module
from sojourn.store.dialects import InsertOrIgnore

MIGRATIONS = Path(migrate.__file__).with_name("migrations")


def texts(options: Any) -> dict[str, str]:
    return {name: str(value) for name, value in options.items()}


def dump(engine: sa.Engine) -> dict[str, Any]:
    """Everything SQLite knows of the schema, whitespace and the order of constraints apart."""
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {}
    for table in inspector.get_table_names():
        found[table] = {
            "columns": [{**column, "type": str(column["type"])} for column in inspector.get_columns(table)],
            "pk": inspector.get_pk_constraint(table),
            "fk": inspector.get_foreign_keys(table),
            "unique": inspector.get_unique_constraints(table),
            "indexes": sorted(
                (
                    {**index, "dialect_options": texts(index["dialect_options"])}
                    for index in inspector.get_indexes(table)
                ),
                key=lambda index: str(index["name"]),
            ),
        }
    with engine.connect() as conn:
        found["autoincrement"] = conn.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
        ).all()
    return found


@pytest.fixture
def migrated(tmp_path: Path) -> Any:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/migrated.db")
    with engine.begin() as conn:
        migrate._run_alembic(conn)
    yield engine
    engine.dispose()


@pytest.fixture
def created(tmp_path: Path) -> Any:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/created.db")
    with engine.begin() as conn:
        migrate.create(conn)
    yield engine
    engine.dispose()


def test_the_revisions_give_the_schema_that_the_code_creates(migrated: sa.Engine, created: sa.Engine) -> None:
    assert dump(migrated) == dump(created)
    with migrated.connect() as one, created.connect() as other:
        assert migrate.revision(one) == migrate.revision(other) == migrate.HEAD


def test_alembic_finds_no_difference_to_the_metadata(migrated: sa.Engine) -> None:
    with migrated.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "target_metadata": schema.metadata})
        assert compare_metadata(context, schema.metadata) == []


def test_the_code_knows_every_revision_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == schema.REVISIONS


def test_a_newer_schema_is_refused_and_not_touched(path: Path, store: Store) -> None:
    asyncio.run(store.close())
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.commit()
    before = path.read_bytes()
    for way in (Store.open, Store.upgrade):
        with pytest.raises(SchemaMismatch, match="newer sojourn"):
            asyncio.run(way(path))
    assert path.read_bytes() == before


def test_an_older_schema_is_upgraded_on_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The only older state there is yet: Alembic's table without a revision of ours applied.
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        other.execute("INSERT INTO alembic_version VALUES ('0000')")
        other.commit()
    ran = []
    monkeypatch.setattr(migrate, "REVISIONS", ("0000", *schema.REVISIONS))
    monkeypatch.setattr(migrate, "_run_alembic", lambda conn: ran.append(conn.in_transaction()))
    with pytest.raises(Exception, match="no such table"):
        asyncio.run(Store.open(path))
    assert ran == [True]


def test_a_failed_upgrade_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(conn: sa.Connection) -> None:
        schema.metadata.tables["meta"].create(conn)
        raise RuntimeError("the power failed")

    monkeypatch.setattr(migrate, "create", half)
    with pytest.raises(RuntimeError):
        asyncio.run(Store.open(path))
    monkeypatch.undo()
    store = asyncio.run(Store.open(path))
    asyncio.run(store.close())


def test_a_revision_run_by_alembic_is_one_transaction(tmp_path: Path) -> None:
    from sojourn.store import engine as engines

    engine = engines.create_engine(engines.locate(tmp_path / "s.db"))

    def migrate_and_fail() -> None:
        with engine.begin() as conn:
            migrate._run_alembic(conn)
            raise RuntimeError("after the last statement")

    with pytest.raises(RuntimeError):
        migrate_and_fail()
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_eight_processes_may_open_a_new_database_at_once(path: Path, processes: Any) -> None:
    program = """
        import asyncio, sys
        from sojourn.store import Store

        async def main():
            store = await Store.open(sys.argv[1])
            print(store.installation_id, store.in_place)
            await store.close()

        asyncio.run(main())
    """
    said = processes(8, program, path)
    assert len(set(said)) == 1
    assert said[0].endswith(" True")


def test_an_open_of_a_current_database_imports_no_alembic(path: Path) -> None:
    program = """
import asyncio, sys
import sojourn.store
assert "alembic" not in sys.modules
for _ in range(2):
    asyncio.run(asyncio.run(sojourn.store.Store.open(sys.argv[1])).close())
print("alembic" in sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False\n", done.stderr


def test_the_programs_logging_survives_a_migration(migrated: sa.Engine) -> None:
    assert not logging.getLogger("sojourn.store").disabled


# -- PostgreSQL, without a server -----------------------------------------------------------------------------------

POSTGRESQL = postgresql.dialect()


def compiled(statement: Any) -> str:
    return str(statement.compile(dialect=POSTGRESQL))


def test_the_tables_compile_for_postgresql() -> None:
    schema.use_postgresql()
    ddl = "\n".join(compiled(CreateTable(table)) for table in schema.metadata.sorted_tables)
    assert "expires_at TIMESTAMP WITH TIME ZONE NOT NULL" in ddl
    assert "id BIGSERIAL NOT NULL" in ddl
    indexes = {index.name: compiled(CreateIndex(index)) for index in schema.leases.indexes}
    assert "WHERE status IN ('waiting'," in indexes["uq_leases_live_resource"]
    assert "WHERE run_id IS NOT NULL AND status IN" in indexes["uq_leases_live_run"]


def test_the_statements_compile_for_postgresql() -> None:
    statements = [
        (f"{module.__name__}.{name}", value)
        for module in (leases, holders, activity, clock, environments_module)
        for name, value in vars(module).items()
        if isinstance(value, sa.sql.Executable | InsertOrIgnore)
    ]
    assert len(statements) > 30
    for name, statement in statements:
        if isinstance(statement, InsertOrIgnore):
            assert "ON CONFLICT DO NOTHING RETURNING" in compiled(statement.statement("postgresql")), name
        elif not isinstance(statement, sa.ColumnElement):
            assert compiled(statement), name
    assert "FOR UPDATE" in compiled(leases._FOR_UPDATE)
    assert "FOR SHARE" in compiled(holders._FENCED_AT)


def test_the_clock_of_postgresql_is_the_servers() -> None:
    assert "clock_timestamp()" in compiled(clock._CLOCK_TIMESTAMP)


def test_an_sqlite_store_does_not_load_what_postgresql_needs() -> None:
    program = "import sys, sojourn.store; sys.exit('sqlalchemy.dialects.postgresql' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
