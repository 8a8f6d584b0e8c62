"""``sojourn explain``: what a run would do, which environment it would get, and why; nothing is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.output import fields, heading, line, print_json, table
from sojourn.cli.run import MODES
from sojourn.cli.types import DURATION, duration_text

if TYPE_CHECKING:
    from sojourn.cli.explaining import Command, Explained

__all__ = ["explain"]


@click.command()
@common_options
@click.option("--env", "environment", metavar="NAME", help="As for `sojourn run`.  [default: as resolved]")
@click.option(
    "--workspace", metavar="DIR", default=".", show_default="the current directory", help="As for `sojourn run`."
)
@click.option("--mode", type=click.Choice(MODES), show_default="in_place", help="As for `sojourn run`.")
@click.option("--branch", metavar="BRANCH", help="As for `sojourn run`.  [default: a new one]")
@click.option("--provision", metavar="CMD", help="As for `sojourn run`: say whether it would run.  [default: none]")
@click.option("--provision-in-place", is_flag=True, help="As for `sojourn run`.")
@click.option("--teardown", metavar="CMD", help="As for `sojourn run`.  [default: none]")
@click.option("--timeout", "timeout_seconds", type=DURATION, metavar="TIME", help="As for `sojourn run`.")
@click.option("--declared-commands", is_flag=True, help="As for `sojourn run`.")
@click.option("--no-config", is_flag=True, help="As for `sojourn run`.")
@pass_state
def explain(state: State, /, **options: Any) -> int:
    """Say what a run would do: which environment it would use, and why.

    Shows every level that may choose an environment, in the order in which they are asked, and what the choice means: the
    driver, how strongly it isolates, how the workspace gets there; and what a sojourn.toml has to do with it. No place is leased
    and nothing is run. Exit status 1 means that something would stop such a run; what it is is said.

    \b
    Examples:
      sojourn explain
      sojourn explain --env build --mode copy
      sojourn explain --json
    """
    from sojourn.cli.explaining import document, explained

    found = run_async(explained(state, options))
    if state.json:
        print_json(document(found))
    else:
        _show(found)
    return 1 if found.place.problems else 0


def _show(explained: Explained) -> None:
    found, mode = explained.place, explained.mode
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
            "provision": _command(explained.provision, "before the command"),
            **_more(explained),
            "policy": found.policy,
            "leases": f"{found.capacity.occupied} now, {limit}",
        }
    )
    _show_file(explained)
    if found.problems:
        heading("It would fail")
        for problem in found.problems:
            line(problem)


def _more(explained: Explained) -> dict[str, object]:
    """Return what most runs have not."""
    more: dict[str, object] = {}
    if explained.teardown.text is not None:
        more["teardown"] = _command(explained.teardown, "at the end")
    if explained.timeout_seconds is not None:
        more["time limit"] = duration_text(explained.timeout_seconds)
    return more


def _command(command: Command, when: str) -> str:
    if command.text is None:
        return "none asked for"
    return (
        f"would not run: {command.reason} ({command.text})" if command.reason else f"would run {when}: {command.text}"
    )


def _show_file(explained: Explained) -> None:
    if explained.declared.found is None:
        return
    heading(f"From {explained.declared.found.file}")
    fields({name.replace("_", " "): value for name, value in explained.from_file.items()} or {"used": "nothing"})
    pending = explained.pending
    if pending is not None:
        line(f"environment {pending.name} is not as it is declared ({', '.join(pending.fields) or 'not stored'});")
        line("`sojourn env apply` shows the difference")
