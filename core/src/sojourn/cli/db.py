"""``sojourn db``: the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.output import fields, note, print_json, warn

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["db"]

MOST_PROBLEMS = 20


@click.group()
@common_options
def db() -> None:
    """Look after the database that holds all records."""


@db.command()
@common_options
@pass_state
def check(state: State, /) -> int:
    """Check the database for damage, and say what is in it: schema, size, holders, leases by state.

    An SQLite file is read to its end and compared with its indexes, and every reference between its rows is followed; a
    large one takes its time. PostgreSQL looks after itself: of that only schema and contents are read. Nothing is changed.

    \b
    Examples:
      sojourn db check
      sojourn db check --json --store /srv/sojourn/sojourn.db

    Exit status: 0 sound, 1 damaged, or it cannot be opened.
    """
    found = run_async(_check(state))
    problems = found["problems"]
    for problem in problems:
        warn(f"damaged: {problem}")
    if problems:
        warn("restore a backup; sojourn does not repair a database, and `sqlite3 FILE .recover` may save what is left")
    if state.json:
        print_json(found)
        return 1 if problems else 0
    counts = found.pop("leases")
    shown = {**found, "problems": len(problems) or "none"}
    if counts is not None:
        shown["leases"] = ", ".join(f"{number} {status}" for status, number in counts.items()) or "none"
    fields(shown)
    if not found["in_place"]:
        note("sweeps are off: the database was copied or moved; see `sojourn db adopt --help`", quiet=state.quiet)
    return 1 if problems else 0


async def _check(state: State) -> dict[str, Any]:
    from sojourn.errors import StoreCorrupt

    async with state.open_store() as store:
        facts = {"store": store.url, "installation_id": store.installation_id, "in_place": store.in_place}
        try:
            problems = await store.read(_damage)
        except StoreCorrupt:
            problems = ["it cannot be read to its end"]
        try:
            contents = await store.read(_look)
        except StoreCorrupt:
            # What is wrong was found above; a sound database answers.
            contents = dict.fromkeys(("schema", "environments", "holders", "activity", "leases"))
            problems = problems or ["it cannot be read to its end"]
        return {**facts, "problems": problems, **contents, "size_bytes": _size(store.url)}


def _damage(conn: Connection) -> list[str]:
    """Return what SQLite finds wrong with its file: pages, indexes, rows, and references that lead nowhere."""
    if conn.dialect.name != "sqlite":
        return []
    found = conn.exec_driver_sql(f"PRAGMA integrity_check({MOST_PROBLEMS})").scalars().all()
    # A long answer has line breaks of its own.
    problems = [line for text in found if text != "ok" for line in str(text).splitlines() if line.strip()]
    for table, row, parent, _ in conn.exec_driver_sql("PRAGMA foreign_key_check").all():
        problems.append(f"row {row} of {table} names a row of {parent} that is not there")
    return problems[:MOST_PROBLEMS]


def _look(conn: Connection) -> dict[str, Any]:
    from sqlalchemy import func, select

    from sojourn.store import migrate, schema

    def count(table: Any) -> int:
        return conn.execute(select(func.count()).select_from(table)).scalar_one()

    status = schema.leases.c.status
    by_status = conn.execute(select(status, func.count()).group_by(status).order_by(status)).all()
    return {
        "schema": migrate.revision(conn),
        "environments": count(schema.environments),
        "holders": count(schema.holders),
        "activity": count(schema.activity),
        "leases": {str(name): number for name, number in by_status},
    }


def _size(url: str) -> int | None:
    """Return the size of an SQLite database with what is not merged into its file yet."""
    from pathlib import Path

    from sqlalchemy import make_url

    place = make_url(url)
    if not place.drivername.startswith("sqlite") or place.database is None:
        return None
    files = [Path(place.database + suffix) for suffix in ("", "-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


@db.command()
@common_options
@pass_state
def upgrade(state: State, /) -> int:
    """Bring the schema up to date. SQLite files do that by themselves when they are opened; PostgreSQL waits for this.

    It may be run at any time and does nothing to a database that is up to date. Make a copy of the database first when an older
    sojourn has to read it again: there is no way back.

    \b
    Example:
      sojourn db upgrade --store postgresql://db.example/sojourn

    Exit status: 0 up to date, 1 it cannot be: written by a newer sojourn, or not reachable.
    """
    where = run_async(_upgrade(state))
    if state.json:
        print_json({"store": where, "upgraded": True})
    else:
        note(f"{where} is up to date", quiet=state.quiet)
    return 0


async def _upgrade(state: State) -> str:
    from sojourn.store import Store

    store = await Store.upgrade(state.store)
    await store.close()
    return store.url


@db.command()
@common_options
@click.option(
    "--new-installation", is_flag=True, help="Give it a new installation id: right for a copy whose original lives on."
)
@pass_state
def adopt(state: State, /, *, new_installation: bool) -> int:
    """Accept a database that was moved or copied, so that sweeps are on again.

    A database that is not where it was made is not swept: if the original lives on, its runs could lose their places. Say
    --new-installation for a copy, nothing for one that was moved.

    \b
    Examples:
      sojourn db adopt
      sojourn db adopt --new-installation

    Exit status: 0 sweeps are on, 1 the database cannot be opened or written.
    """
    installation_id = run_async(_adopt(state, new_installation=new_installation))
    if state.json:
        print_json({"installation_id": installation_id, "in_place": True})
    else:
        note(f"installation {installation_id}: sweeps are on", quiet=state.quiet)
    return 0


async def _adopt(state: State, *, new_installation: bool) -> str:
    async with state.open_store() as store:
        return await store.adopt(new_installation=new_installation)
