"""``sojourn lease``: look at leases, give one back by hand, give one more time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, operator, pass_state, run_async
from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import block, fields, heading, note, print_json, shown, table, warn
from sojourn.cli.types import DURATION

if TYPE_CHECKING:
    from sojourn.records import ActivityEvent, Lease
    from sojourn.releasing import ReleaseReport
    from sojourn.store import Store

__all__ = ["lease"]

ENDED_SHOWN = 20
STATUSES = (
    "waiting",
    "acquiring",
    "active",
    "releasing",
    "retained",
    "pending_cleanup",
    "released",
    "expired",
    "failed",
)


@click.group()
@common_options
def lease() -> None:
    """Look at leases, and act on one by hand.

    A lease is one run's right to one place, from acquire to release. It is over only when the place is proven given back.
    """


# -- list -------------------------------------------------------------------------------------------------------------


@lease.command("list")
@common_options
@click.option(
    "--all", "everything", is_flag=True, help=f"All leases, not only live ones and the last {ENDED_SHOWN} that ended."
)
@click.option("--status", type=click.Choice(STATUSES), help="Only leases in this state.")
@click.option("--run", "run_id", metavar="ID", help="Only leases of this run.")
@click.option("--env", "environment", metavar="NAME", help="Only leases in this environment, by name or id.")
@pass_state
def list_leases(state: State, /, *, everything: bool, **wanted: str | None) -> int:
    """List leases, oldest first: the live ones and the last 20 that ended.

    \b
    Examples:
      sojourn lease list
      sojourn lease list --status pending_cleanup
      sojourn lease list --all --env local --json
    """
    found = run_async(_list(state, everything=everything or wanted["status"] is not None, **wanted))
    if state.json:
        from sojourn.cli import documents

        print_json({"leases": [documents.lease(one) for one in found]})
        return 0
    if not found:
        note("no leases", quiet=state.quiet)
        return 0
    table(
        ("LEASE", "STATUS", "CLEANUP", "ENVIRONMENT", "DRIVER", "RUN", "CREATED", "ENDED", "REASON"),
        [
            (
                one.id,
                one.status,
                one.cleanup_status,
                one.environment_name,
                one.driver,
                one.context.run_id,
                one.created_at,
                one.ended_at,
                one.failure_reason,
            )
            for one in found
        ],
    )
    return 0


async def _list(
    state: State, *, everything: bool, status: str | None, run_id: str | None, environment: str | None
) -> list[Lease]:
    from sojourn.records import LeaseStatus
    from sojourn.store import leases

    wanted = LeaseStatus(status) if status else None
    async with state.open_store() as store:
        found = await store.read(leases.list_all, state.tenant, status=wanted, run_id=run_id)
    if environment is not None:
        found = [one for one in found if environment in (one.environment_name, one.environment_id)]
    if everything:
        return found
    ended = {one.id for one in [one for one in found if one.status.terminal][-ENDED_SHOWN:]}
    return [one for one in found if one.id in ended or not one.status.terminal]


# -- show -------------------------------------------------------------------------------------------------------------


@lease.command("show")
@common_options
@click.argument("lease_id", metavar="ID")
@pass_state
def show_lease(state: State, /, *, lease_id: str) -> int:
    """Show everything about one lease: its row, why its environment was chosen, its workspace, what happened to it.

    \b
    Example:
      sojourn lease show lease_01m83k955e4hhdc0txwyxb
    """
    found, events = run_async(_look(state, lease_id))
    if state.json:
        from sojourn.cli import documents

        print_json({"lease": documents.lease(found), "activity": [documents.event(one) for one in events]})
        return 0
    _show_row(found)
    _show_resolution(found)
    _show_workspace(found)
    heading("Activity")
    table(
        ("AT", "ACTION", "ACTOR", "DETAILS"), [(one.at, one.action, actor(one), compact(one.details)) for one in events]
    )
    return 0


async def _look(state: State, lease_id: str) -> tuple[Lease, list[ActivityEvent]]:
    from sojourn.store import activity

    async with state.open_store() as store:
        found = await _existing(state, store, lease_id)
        return found, await store.read(activity.list_all, state.tenant, entity_id=found.id)


async def _existing(state: State, store: Store, lease_id: str) -> Lease:
    from sojourn.store import leases

    found = await store.read(leases.get, lease_id)
    if found is None or found.tenant != state.tenant:
        raise CommandLineError(
            f"there is no lease {lease_id!r}; `sojourn lease list` shows what there is", "lease_not_found"
        )
    return found


def _show_row(found: Lease) -> None:
    context = found.context
    fields(
        {
            "lease": found.id,
            "status": found.status,
            "outcome": found.outcome,
            "cleanup": found.cleanup_status,
            "failure reason": found.failure_reason,
            "last error": found.last_error,
            "environment": f"{found.environment_name} ({found.environment_id})",
            "driver": found.driver,
            "provider": found.provider,
            "provider's id": found.provider_lease_id,
            "resource": f"{found.resource_id} (epoch {found.epoch})",
            "policy": found.policy,
            "transfer": found.transfer,
            "tenant": found.tenant,
            "run": context.run_id,
            "agent": context.agent_id,
            "issue": context.issue_id,
            "workspace id": context.execution_workspace_id,
            "holder": found.holder_id,
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


def actor(event: ActivityEvent) -> str:
    """Return who did it."""
    return event.actor_type if event.actor_id is None else f"{event.actor_type} {event.actor_id}"


def compact(details: Any) -> str:
    """Return the details of an event in one cell, without what is not said."""
    known = {name: value for name, value in details.items() if value is not None}
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in known.items())


# -- release, extend --------------------------------------------------------------------------------------------------


@lease.command("release")
@common_options
@click.argument("lease_id", metavar="ID")
@click.option("--failed", "reason", metavar="REASON", help="End it as failed, for this reason.  [default: as released]")
@pass_state
def release_lease(state: State, /, *, lease_id: str, reason: str | None) -> int:
    """Give one lease back, also one that another process holds.

    What runs in it is ended, and its holder finds its lease lost. One that waits for clean-up is tried again now. Exit
    status 1 means that the place is not proven gone; `sojourn reap` tries again.

    \b
    Examples:
      sojourn lease release lease_01m83k955e4hhdc0txwyxb
      sojourn lease release lease_01m83k955e4hhdc0txwyxb --failed "the disk was full"
    """
    report, after = run_async(_release(state, lease_id, reason))
    for trouble in report.errors:
        warn(str(trouble.error))
    if state.json:
        from sojourn.cli import documents

        errors = [{"lease_id": trouble.lease_id, "message": str(trouble.error)} for trouble in report.errors]
        print_json({"lease": documents.lease(after), "released": bool(report.released), "errors": errors})
    elif not report.errors:
        what = "is" if report.released else "was over already:"
        note(f"lease {after.id} {what} {after.status}", quiet=state.quiet)
    return 1 if report.errors else 0


async def _release(state: State, lease_id: str, reason: str | None) -> tuple[ReleaseReport, Lease]:
    async with state.orchestrator() as orchestrator:
        await _existing(state, orchestrator.store, lease_id)
        outcome = "released" if reason is None else "failed"
        report = await orchestrator.leases.release(lease_id, status=outcome, failure_reason=reason, actor=operator())
        return report, await _existing(state, orchestrator.store, lease_id)


@lease.command("extend")
@common_options
@click.argument("lease_id", metavar="ID")
@click.option("--by", "seconds", type=DURATION, metavar="TIME", required=True, help="How much longer, e.g. 2h or 30m.")
@pass_state
def extend_lease(state: State, /, *, lease_id: str, seconds: float) -> int:
    """Let an active lease live longer, counted from its present end.

    \b
    Example:
      sojourn lease extend lease_01m83k955e4hhdc0txwyxb --by 2h
    """
    after = run_async(_extend(state, lease_id, timedelta(seconds=seconds)))
    if state.json:
        from sojourn.cli import documents

        print_json({"lease": documents.lease(after)})
    else:
        note(f"lease {after.id} expires at {shown(after.expires_at)}", quiet=state.quiet)
    return 0


async def _extend(state: State, lease_id: str, by: timedelta) -> Lease:
    async with state.orchestrator() as orchestrator:
        found = await _existing(state, orchestrator.store, lease_id)
        # One whose end is past and that no sweep has ended yet gets its time from now.
        return await orchestrator.leases.extend(lease_id, max(found.expires_at, datetime.now(UTC)) + by)
