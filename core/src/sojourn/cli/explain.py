"""``sojourn explain``: which environment a run would get, and why; nothing is leased."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.output import fields, heading, line, print_json, table
from sojourn.cli.run import MODES

if TYPE_CHECKING:
    from sojourn.models import DriverInfo
    from sojourn.resolution import Resolution

__all__ = ["explain"]


@click.command()
@common_options
@click.option("--env", "environment", metavar="NAME", help="As for `sojourn run`.  [default: as resolved]")
@click.option(
    "--workspace", metavar="DIR", default=".", show_default="the current directory", help="As for `sojourn run`."
)
@click.option("--mode", type=click.Choice(MODES), default="in_place", show_default=True, help="As for `sojourn run`.")
@click.option("--provision", metavar="CMD", help="As for `sojourn run`: say whether it would run.  [default: none]")
@click.option("--provision-in-place", is_flag=True, help="As for `sojourn run`.")
@pass_state
def explain(state: State, /, **options: Any) -> int:
    """Say which environment a run would use, and why.

    Shows every level that may choose an environment, in the order in which they are asked, and what the choice means: the
    driver, how strongly it isolates, how the workspace gets there. No place is leased and nothing is run. Exit status 1
    means that such a run would fail.

    \b
    Examples:
      sojourn explain
      sojourn explain --env build --mode copy
      sojourn explain --json
    """
    found, info = run_async(_resolve(state, options["environment"]))
    problems = _problems(info, options)
    provision = _provision(info, options)
    transfer = "copy" if options["mode"] == "copy" else "in_place"
    if state.json:
        print_json(_document(found, info, options, transfer, provision, problems))
    else:
        _show(found, info, options, transfer, provision, problems)
    return 1 if problems else 0


async def _resolve(state: State, environment: str | None) -> tuple[Resolution, DriverInfo]:
    async with state.orchestrator() as orchestrator:
        found = await orchestrator.resolve_environment(environment)
        return found, orchestrator.drivers.get(found.environment.driver).info


def _problems(info: DriverInfo, options: dict[str, Any]) -> list[str]:
    from sojourn.errors import WorkspaceError
    from sojourn.workspace.copying import check_source

    problems = []
    if options["mode"] == "git_worktree" and info.transport != "local":
        problems.append("mode git_worktree needs an environment on this machine")
    transfer = "copy" if options["mode"] == "copy" else "in_place"
    if transfer not in info.transfers:
        problems.append(f"driver {info.name} does not offer transfer {transfer}; it offers {', '.join(info.transfers)}")
    try:
        check_source(Path(options["workspace"]).absolute())
    except WorkspaceError as error:
        problems.append(str(error))
    return problems


def _provision(info: DriverInfo, options: dict[str, Any]) -> str:
    if not options["provision"]:
        return "none asked for"
    own_tree = info.transport == "local" and options["mode"] == "in_place"
    if own_tree and not options["provision_in_place"]:
        return "would not run: the workspace is your own tree, and --provision-in-place is not set"
    return "would run before the command"


def _document(
    found: Resolution, info: DriverInfo, options: dict[str, Any], transfer: str, provision: str, problems: list[str]
) -> dict[str, Any]:
    from sojourn.cli import documents

    return {
        "environment": documents.environment(found.environment),
        "level": found.level,
        "resolution": documents.trace(found.trace),
        "driver": {
            "name": info.name,
            "version": info.version,
            "provider": info.provider,
            "isolation": info.isolation,
            "transport": info.transport,
            "transfers": list(info.transfers),
        },
        "workspace": {
            "path": str(Path(options["workspace"]).absolute()),
            "mode": options["mode"],
            "transfer": transfer,
        },
        "policy": str(found.environment.policy),
        "provision": provision,
        "problems": problems,
    }


def _show(
    found: Resolution, info: DriverInfo, options: dict[str, Any], transfer: str, provision: str, problems: list[str]
) -> None:
    table(
        ("LEVEL", "VERDICT", "ENVIRONMENT", "WHY"),
        [(at.level, at.verdict, at.value, at.reason) for at in found.trace],
    )
    heading(f"A run would use environment {found.environment.name}")
    fields(
        {
            "driver": f"{info.name} {info.version}",
            "isolation": info.isolation,
            "workspace": str(Path(options["workspace"]).absolute()),
            "mode": f"{options['mode']} (transfer {transfer})",
            "policy": found.environment.policy,
            "provision": provision,
        }
    )
    for problem in problems:
        line(f"but it would fail: {problem}")
