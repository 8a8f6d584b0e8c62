"""``sojourn explain``: what a run would do, which environment it would get, and why; nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.output import fields, heading, line, print_json, table
from sojourn.cli.run import MODES

if TYPE_CHECKING:
    from sojourn.explanation import Explanation

__all__ = ["explain"]


@click.command()
@common_options
@click.option("--env", "environment", metavar="NAME", help="As for `sojourn run`.  [default: as resolved]")
@click.option(
    "--workspace", metavar="DIR", default=".", show_default="the current directory", help="As for `sojourn run`."
)
@click.option("--mode", type=click.Choice(MODES), default="in_place", show_default=True, help="As for `sojourn run`.")
@click.option("--branch", metavar="BRANCH", help="As for `sojourn run`.  [default: a new one]")
@click.option("--provision", metavar="CMD", help="As for `sojourn run`: say whether it would run.  [default: none]")
@click.option("--provision-in-place", is_flag=True, help="As for `sojourn run`.")
@pass_state
def explain(state: State, /, **options: Any) -> int:
    """Say what a run would do: which environment it would use, and why.

    Shows every level that may choose an environment, in the order in which they are asked, and what the choice means: the
    driver, how strongly it isolates, how the workspace gets there. No place is leased and nothing is run. Exit status 1
    means that something would stop such a run; what it is is said.

    \b
    Examples:
      sojourn explain
      sojourn explain --env build --mode copy
      sojourn explain --json
    """
    found = run_async(_explain(state, **options))
    if state.json:
        print_json(_document(found, options["mode"]))
    else:
        _show(found, options["mode"])
    return 1 if found.problems else 0


async def _explain(
    state: State,
    *,
    environment: str | None,
    workspace: str,
    mode: str,
    branch: str | None,
    provision: str | None,
    provision_in_place: bool,
) -> Explanation:
    from sojourn.realization_records import Overlay, Workspace

    tree = Workspace(
        local_path=str(Path(workspace).absolute()),
        strategy="git_worktree" if mode == "git_worktree" else "project_primary",
        branch=branch,
    )
    async with state.orchestrator() as orchestrator:
        return await orchestrator.explain(
            environment,
            workspace=tree,
            transfer="copy" if mode == "copy" else "in_place",
            overlay=Overlay(provision=provision, provision_in_place=provision_in_place),
        )


def _document(found: Explanation, mode: str) -> dict[str, Any]:
    from sojourn.cli import documents

    return {
        # One without an id would be made by the run: the tenant's local one.
        "environment": {**documents.environment(found.environment), "id": found.environment.id or None},
        "level": found.level,
        "resolution": documents.trace(found.trace),
        "driver": found.driver,
        "driver_version": found.driver_version,
        "isolation": found.isolation,
        "transport": found.transport,
        "workspace": found.workspace.local_path,
        "mode": mode,
        "transfer": found.transfer,
        "provision": found.provision,
        "provision_reason": found.provision_reason,
        "policy": str(found.policy),
        "max_leases": found.capacity.max_leases,
        "occupied": found.capacity.occupied,
        "problems": list(found.problems),
    }


def _show(found: Explanation, mode: str) -> None:
    rows = [(at.level, at.verdict, at.value, at.reason) for at in found.trace]
    table(("LEVEL", "VERDICT", "ENVIRONMENT", "WHY"), rows)
    heading(f"A run would use environment {found.environment.name}")
    limit = "no limit" if found.capacity.max_leases is None else f"{found.capacity.max_leases} at once"
    fields(
        {
            "driver": f"{found.driver} {found.driver_version}",
            "isolation": found.isolation,
            "workspace": found.workspace.local_path,
            "mode": mode if found.transfer in (None, mode) else f"{mode} (transfer {found.transfer})",
            "provision": _provision(found),
            "policy": found.policy,
            "leases": f"{found.capacity.occupied} now, {limit}",
        }
    )
    if found.problems:
        heading("It would fail")
        for problem in found.problems:
            line(problem)


def _provision(found: Explanation) -> str:
    if found.provision is None:
        return "none asked for"
    return "would run before the command" if found.provision else f"would not run: {found.provision_reason}"
