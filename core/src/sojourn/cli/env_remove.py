"""``sojourn env remove``: say what would be hit, ask, and remove the environment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli import terminal
from sojourn.cli.context import State, common_options, operator, pass_state, run_async
from sojourn.cli.output import fields, note, print_json, warn

if TYPE_CHECKING:
    from sojourn.removal import BlastRadius

__all__ = ["remove_environment"]


@click.command("remove")
@common_options
@click.argument("name")
@click.option("--force", is_flag=True, help="End the commands of active leases, give those back, and then remove it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be hit; exit status 1 when that would be refused.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Where nobody can be asked, it is needed.")
@pass_state
def remove_environment(state: State, /, *, name: str, force: bool, dry_run: bool, yes: bool) -> int:
    """Remove an environment for good, after saying what that hits.

    Active leases block it, unless --force ends them first. Retained places and pending clean-ups are not forgotten: `sojourn
    reap` still gets them. Who names the environment is left as it is, and will be told that it is gone. `archive` keeps the row.

    \b
    Examples:
      sojourn env remove scratch --dry-run
      sojourn env remove scratch --yes
    """
    radius = run_async(_radius(state, name))
    blocked = bool(radius.active_leases) and not force
    if not state.json:
        _show(radius)
    if dry_run:
        if state.json:
            print_json(_document(radius, removed=False, blocked=blocked))
        elif blocked:
            warn(f"environment {radius.environment.name} could not be removed: active leases; --force ends them first")
        return 1 if blocked else 0
    if blocked:
        from sojourn.removal import in_use

        raise in_use(radius)
    if not yes and not terminal.present():
        raise click.UsageError("there is no terminal to ask on; say --yes")
    if not yes and not terminal.confirm(_question(radius)):
        note("nothing was removed", quiet=state.quiet)
        if state.json:
            print_json(_document(radius, removed=False, blocked=False))
        return 1
    removed = run_async(_remove(state, radius.environment.id, force=force))
    if state.json:
        print_json(_document(removed, removed=True, blocked=False))
    else:
        note(f"environment {removed.environment.name} is removed", quiet=state.quiet)
    return 0


async def _radius(state: State, name: str) -> BlastRadius:
    async with state.orchestrator() as orchestrator:
        return await orchestrator.environments.blast_radius(name)


async def _remove(state: State, environment_id: str, *, force: bool) -> BlastRadius:
    async with state.orchestrator() as orchestrator:
        return await orchestrator.environments.remove(environment_id, force=force, actor=operator())


def _question(radius: BlastRadius) -> str:
    name = radius.environment.name
    if radius.active_leases:
        return f"End {len(radius.active_leases)} running lease(s) and remove environment {name}?"
    return f"Remove environment {name}?"


def _show(radius: BlastRadius) -> None:
    fields(
        {
            "environment": f"{radius.environment.name} ({radius.environment.id})",
            "active leases": ", ".join(lease.id for lease in radius.active_leases) or "none",
            "other leases": ", ".join(f"{lease.id} {lease.status}" for lease in radius.other_leases) or "none",
            "named by": ", ".join(radius.selections) or "nobody",
            "secrets": ", ".join(radius.secrets) or "none",
        }
    )
    # In one log this comes before what is said about it.
    sys.stdout.flush()


def _document(radius: BlastRadius, *, removed: bool, blocked: bool) -> dict[str, Any]:
    from sojourn.cli import documents

    return {
        "environment": documents.environment(radius.environment),
        "active_leases": [lease.id for lease in radius.active_leases],
        "other_leases": [lease.id for lease in radius.other_leases],
        "selections": list(radius.selections),
        "secrets": list(radius.secrets),
        "blocked": blocked,
        "removed": removed,
    }
