"""``sojourn db``: the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.output import fields, note, print_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["db"]


@click.group()
@common_options
def db() -> None:
    """Look after the database that holds all records."""


@db.command()
@common_options
@pass_state
def check(state: State, /) -> int:
    """Open the database and say what is in it: schema, size, holders, leases by state.

    \b
    Example:
      sojourn db check
    """
    found = run_async(_check(state))
    if state.json:
        print_json(found)
        return 0
    counts = found.pop("leases")
    fields({**found, "leases": ", ".join(f"{number} {status}" for status, number in counts.items()) or "none"})
    if not found["in_place"]:
        note("sweeps are off: the database was copied or moved; see `sojourn db adopt --help`", quiet=state.quiet)
    return 0


async def _check(state: State) -> dict[str, Any]:
    async with state.open_store() as store:
        found = await store.read(_look)
        found["size_bytes"] = _size(store.url)
        facts = {"store": store.url, "installation_id": store.installation_id, "in_place": store.in_place}
        return facts | found


def _look(conn: Connection) -> dict[str, Any]:
    from sqlalchemy import func, select

    from sojourn.store import migrate, schema

    def count(table: Any) -> int:
        return conn.execute(select(func.count()).select_from(table)).scalar_one()

    status = schema.leases.c.status
    by_status = conn.execute(select(status, func.count()).group_by(status).order_by(status)).all()
    return {
        "schema": migrate.revision(conn),
        "size_bytes": None,
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

    \b
    Example:
      sojourn db upgrade --store postgresql://db.example/sojourn
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
