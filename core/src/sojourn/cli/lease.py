"""``sojourn lease``: look at leases, give one back by hand, give one more time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sojourn.cli.context import State, common_options, operator, pass_state, run_async
from sojourn.cli.lease_exec import exec_in_lease, open_shell
from sojourn.cli.lease_lookup import existing
from sojourn.cli.lease_show import show_lease
from sojourn.cli.output import clean, note, print_json, shown, table, warn
from sojourn.cli.types import DURATION

if TYPE_CHECKING:
    from sojourn.records import Lease
    from sojourn.releasing import ReleaseReport

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


for command in (show_lease, exec_in_lease, open_shell):
    lease.add_command(command)


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


# -- release, destroy, extend -----------------------------------------------------------------------------------------


@lease.command("release")
@common_options
@click.argument("lease_id", metavar="ID")
@click.option("--failed", "reason", metavar="REASON", help="End it as failed, for this reason.  [default: as released]")
@pass_state
def release_lease(state: State, /, *, lease_id: str, reason: str | None) -> int:
    """Give one lease back, also one that another process holds.

    What runs in it is ended, and its holder finds its lease lost. One that waits for clean-up is tried again now. A place
    whose policy says so is kept for the next run; `sojourn lease destroy` removes it as well.

    \b
    Examples:
      sojourn lease release lease_01m83k955e4hhdc0txwyxb
      sojourn lease release lease_01m83k955e4hhdc0txwyxb --failed "the disk was full"

    Exit status: 0 it is given back, or was already; 1 it is not proven gone (`sojourn reap` tries again), or there is no
    such lease.
    """
    return _said(state, *run_async(_end(state, lease_id, reason, destroy=False)))


@lease.command("destroy")
@common_options
@click.argument("lease_id", metavar="ID")
@click.option("--failed", "reason", metavar="REASON", help="End it as failed, for this reason.  [default: as expired]")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Where nobody can be asked, it is needed.")
@pass_state
def destroy_lease(state: State, /, *, lease_id: str, reason: str | None, yes: bool) -> int:
    """Destroy a lease's place now, whatever its policy says, with all that is in it.

    Like release, but a place that is kept for reuse or for inspection goes too. What runs in it is ended, and its holder
    finds its lease lost. On a terminal it asks first.

    \b
    Examples:
      sojourn lease destroy lease_01m83k955e4hhdc0txwyxb
      sojourn lease destroy lease_01m83k955e4hhdc0txwyxb --yes --failed "it was compromised"

    Exit status: 0 the place is gone, 1 it is not proven gone (`sojourn reap` tries again) or the answer was no, 2 there is
    nobody to ask and no --yes.
    """
    if not yes and not _agreed(state, run_async(_find(state, lease_id))):
        note("nothing was done", quiet=state.quiet)
        return 1
    return _said(state, *run_async(_end(state, lease_id, reason, destroy=True)))


async def _find(state: State, lease_id: str) -> Lease:
    async with state.open_store() as store:
        return await existing(state, store, lease_id)


def _agreed(state: State, found: Lease) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("there is no terminal to ask on; say --yes")
    run = f" of run {found.context.run_id}" if found.context.run_id else ""
    question = clean(f"Destroy {found.status} lease {found.id}{run} in environment {found.environment_name}?")
    return click.confirm(question, err=True)


async def _end(state: State, lease_id: str, reason: str | None, *, destroy: bool) -> tuple[ReleaseReport, Lease]:
    async with state.orchestrator() as orchestrator:
        await existing(state, orchestrator.store, lease_id)
        if destroy:
            report = await orchestrator.leases.destroy(lease_id, failure_reason=reason, actor=operator())
        else:
            outcome = "released" if reason is None else "failed"
            report = await orchestrator.leases.release(
                lease_id, status=outcome, failure_reason=reason, actor=operator()
            )
        return report, await existing(state, orchestrator.store, lease_id)


def _said(state: State, report: ReleaseReport, after: Lease) -> int:
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

    Exit status: 0 done, 1 it is not active, or there is no such lease.
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
        found = await existing(state, orchestrator.store, lease_id)
        # One whose end is past and that no sweep has ended yet gets its time from now.
        return await orchestrator.leases.extend(lease_id, max(found.expires_at, datetime.now(UTC)) + by)
