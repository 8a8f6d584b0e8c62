"""``sojourn reap``: put right what crashed processes left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sojourn.cli.context import State, common_options, operator, pass_state, run_async
from sojourn.cli.output import note, print_json, table

if TYPE_CHECKING:
    from sojourn.reaping import ReapReport

__all__ = ["reap"]


@click.command()
@common_options
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@click.option("--force", is_flag=True, help="Try also leases whose next attempt is not due yet.")
@pass_state
def reap(state: State, /, *, dry_run: bool, force: bool) -> int:
    """Put right what crashed or killed processes left.

    Takes over the leases of holders that are gone, ends leases whose lifetime is over, and makes the clean-up attempts that
    are due. A lease is over only when its place is proven gone. It may be run at any time, also by several at once.

    \b
    Examples:
      sojourn reap --dry-run
      sojourn reap
      sojourn reap --force --json

    Exit status: 0 nothing is left to put right (or with --dry-run: this is what would be done), 1 something still waits for
    its clean-up; `sojourn lease show ID` says why.
    """
    report = run_async(_reap(state, dry_run=dry_run, force=force))
    if state.json:
        names = ("lease_id", "environment_name", "resource_id", "why", "result", "detail")
        items = [{name: getattr(item, name) for name in names} for item in report.items]
        print_json({"dry_run": report.dry_run, "items": items, "pending": len(report.pending)})
    elif report.items:
        table(
            ("LEASE", "ENVIRONMENT", "RESOURCE", "RESULT", "WHY", "DETAIL"),
            [(i.lease_id, i.environment_name, i.resource_id, i.result, i.why, i.detail) for i in report.items],
        )
    else:
        note("nothing to put right", quiet=state.quiet)
    return 1 if report.pending else 0


async def _reap(state: State, *, dry_run: bool, force: bool) -> ReapReport:
    async with state.orchestrator() as orchestrator:
        return await orchestrator.reap(dry_run=dry_run, force=force, actor=operator())
