"""``sojourn activity``: the record of what happened, and what happens now."""

from __future__ import annotations

import json
import select
import sys
from typing import TYPE_CHECKING

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.lease_words import actor, compact
from sojourn.cli.output import line, note, print_json, shown, table

if TYPE_CHECKING:
    from sojourn.records import ActivityEvent

__all__ = ["activity"]

POLL_SECONDS = 0.5
INTERRUPTED_STATUS = 130


@click.command()
@common_options
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many, the newest."
)
@click.option(
    "--follow", "-f", is_flag=True, help="Go on and show what happens, until Ctrl-C. With --json one object per line."
)
@click.option("--entity", "entity_id", metavar="ID", help="Only what happened to this, e.g. a lease.")
@pass_state
def activity(state: State, /, *, limit: int, follow: bool, entity_id: str | None) -> int:
    """Show what happened, oldest first: which lease was taken and given back, which environment was changed, by whom.

    \b
    Examples:
      sojourn activity
      sojourn activity --limit 5 --json
      sojourn activity --follow
      sojourn activity --follow --json | jq -r .action
      sojourn activity --entity lease_01m83k955e4hhdc0txwyxb

    With --json it is one document; with --follow too it is one document per line, each as soon as it happens. Exit status:
    0; with --follow 130 at Ctrl-C, and 141 when nobody reads the output any more.
    """
    if not follow:
        run_async(_once(state, limit, entity_id))
        return 0
    try:
        run_async(_follow(state, limit, entity_id))
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            # The terminal has written ^C: what comes next begins on a line of its own.
            sys.stderr.write("\n")
    return INTERRUPTED_STATUS


async def _once(state: State, limit: int, entity_id: str | None) -> None:
    from sojourn.store import activity as events

    async with state.open_store() as store:
        found = await store.read(events.list_all, state.tenant, entity_id=entity_id, limit=limit, newest=True)
    if state.json:
        from sojourn.cli import documents

        print_json({"activity": [documents.event(one) for one in found]})
    elif found:
        table(
            ("AT", "ACTION", "ENTITY", "ACTOR", "DETAILS"),
            [(one.at, one.action, one.entity_id, actor(one), compact(one.details)) for one in found],
        )
    else:
        note("no activity", quiet=state.quiet)


async def _follow(state: State, limit: int, entity_id: str | None) -> None:
    import asyncio

    from sojourn.store import activity as events

    async with state.open_store() as store:
        found = await store.read(events.list_all, state.tenant, entity_id=entity_id, limit=limit, newest=True)
        last = 0
        while True:
            for one in found:
                _show_now(state, one)
                last = one.id
            sys.stdout.flush()
            _require_reader()
            await asyncio.sleep(POLL_SECONDS)
            found = await store.read(events.list_all, state.tenant, after_id=last, entity_id=entity_id)


def _require_reader() -> None:
    """Where nothing happens nothing is written, and a pipe whose reader has gone would not be noticed.

    Raises:
        BrokenPipeError: it has gone.
    """
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return  # not a stream of the system, as in a host application's tests
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise BrokenPipeError


def _show_now(state: State, event: ActivityEvent) -> None:
    if state.json:
        from sojourn.cli import documents

        sys.stdout.write(json.dumps(documents.event(event), allow_nan=False) + "\n")
    else:
        line(f"{shown(event.at)}  {event.action}  {event.entity_id}  {actor(event)}  {compact(event.details)}")
