"""``sojourn lease show``: where a lease is, for whom, why there, in what state, and what comes next."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.lease_lookup import existing
from sojourn.cli.lease_words import actor, compact, held_by, state_and_next
from sojourn.cli.output import block, fields, heading, print_json, table

if TYPE_CHECKING:
    from sojourn.records import ActivityEvent, Holder, Lease

__all__ = ["show_lease"]


@click.command("show")
@common_options
@click.argument("lease_id", metavar="ID")
@pass_state
def show_lease(state: State, /, *, lease_id: str) -> int:
    """Show everything about one lease: its state and what comes next, where it is, for whom, why there, what happened.

    \b
    Examples:
      sojourn lease show lease_01m83k955e4hhdc0txwyxb
      sojourn lease show lease_01m83k955e4hhdc0txwyxb --json

    Exit status: 0 shown, 1 there is no such lease.
    """
    found = run_async(_look(state, lease_id))
    if state.json:
        from sojourn.cli import documents

        events = [documents.event(one) for one in found.events]
        print_json({"lease": documents.lease(found.lease), "activity": events})
        return 0
    _show_row(found)
    _show_resolution(found.lease)
    _show_workspace(found.lease)
    heading("Activity")
    rows = [(one.at, one.action, actor(one), compact(one.details)) for one in found.events]
    table(("AT", "ACTION", "ACTOR", "DETAILS"), rows)
    return 0


class _Found(NamedTuple):
    lease: Lease
    holder: Holder | None
    events: list[ActivityEvent]
    now: datetime


async def _look(state: State, lease_id: str) -> _Found:
    from sojourn.store import activity, clock, holders

    async with state.open_store() as store:
        found = await existing(state, store, lease_id)
        holder = await store.read(holders.get, found.holder_id) if found.holder_id else None
        events = await store.read(activity.list_all, state.tenant, entity_id=found.id)
        return _Found(found, holder, events, await store.read(clock.now))


def _show_row(looked: _Found) -> None:
    found, context = looked.lease, looked.lease.context
    words, comes_next = state_and_next(found, looked.holder, looked.now)
    fields(
        {
            "lease": found.id,
            "status": found.status,
            "state": words,
            "next": comes_next,
            "outcome": found.outcome,
            "cleanup": found.cleanup_status,
            "failure reason": found.failure_reason,
            "last error": found.last_error,
            "environment": f"{found.environment_name} ({found.environment_id})",
            "driver": found.driver,
            "provider": found.provider,
            "provider's id": found.provider_lease_id,
            "resource": f"{found.resource_id} (epoch {found.epoch})",
            "folder": found.remote_cwd,
            "policy": found.policy,
            "transfer": found.transfer,
            "tenant": found.tenant,
            "run": context.run_id,
            "agent": context.agent_id,
            "issue": context.issue_id,
            "workspace id": context.execution_workspace_id,
            "holder": held_by(looked.holder) or found.holder_id,
            "clean-up attempts": found.attempts,
            "next attempt": found.next_try_at,
            "created": found.created_at,
            "acquired": found.acquired_at,
            "expires": found.expires_at,
            "ended": found.ended_at,
        }
    )


def _show_resolution(found: Lease) -> None:
    trace = found.metadata.get("resolution")
    if isinstance(trace, list) and all(isinstance(level, dict) for level in trace):
        heading("Why this environment")
        columns = ("level", "verdict", "value", "reason")
        table(("LEVEL", "VERDICT", "ENVIRONMENT", "WHY"), [[level.get(name) for name in columns] for level in trace])


def _show_workspace(found: Lease) -> None:
    from sojourn.realization_records import read_record

    record = read_record(found.metadata.get("workspace_realization"))
    if record is None:
        return
    heading("Workspace")
    known = {
        "summary": record.summary,
        "root": record.authoritative_root,
        "branch": record.local.get("branch"),
        "worktree": record.local.get("worktree"),
    }
    fields({name: value for name, value in known.items() if value})
    done = record.bootstrap
    if done is not None and done.ran:
        heading("Provision")
        fields({"exit code": done.exit_code, "seconds": done.duration_seconds})
        block(done.output_tail or "")
    elif done is not None:
        heading("Provision")
        fields({"did not run": done.reason})
