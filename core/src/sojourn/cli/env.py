"""``sojourn env``: stored environments, the named places to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.env_add import add_environment
from sojourn.cli.env_apply import apply_declaration, print_schema
from sojourn.cli.env_edit import edit_environment
from sojourn.cli.env_probe import probe_environment
from sojourn.cli.env_remove import remove_environment
from sojourn.cli.env_stored import find, present
from sojourn.cli.output import note, print_json, table

if TYPE_CHECKING:
    from sojourn.records import Environment

__all__ = ["env"]


@click.group()
@common_options
def env() -> None:
    """Manage environments: the named places to run.

    An environment is a driver with its configuration. There is always one called `local`: this machine. `add` makes one by
    hand; `apply` makes those that a repository declares in its sojourn.toml.
    """


for command in (
    add_environment,
    edit_environment,
    remove_environment,
    probe_environment,
    apply_declaration,
    print_schema,
):
    env.add_command(command)


@env.command("list")
@common_options
@click.option("--all", "everything", is_flag=True, help="Archived ones too.")
@pass_state
def list_environments(state: State, /, *, everything: bool) -> int:
    """List environments by name.

    \b
    Example:
      sojourn env list --all
    """
    found, default = run_async(_list(state, everything=everything))
    if state.json:
        from sojourn.cli import documents

        print_json({"environments": [documents.environment(one) for one in found], "default_id": default})
    elif found:
        table(
            ("NAME", "STATUS", "DRIVER", "POLICY", "MAX LEASES", "DEFAULT", "ID", "DESCRIPTION"),
            [
                (
                    e.name,
                    e.status,
                    e.driver,
                    e.policy,
                    e.max_leases,
                    "yes" if e.id == default else None,
                    e.id,
                    e.description,
                )
                for e in found
            ],
        )
    else:
        note("no environments yet; `local` is made when it is first used", quiet=state.quiet)
    return 0


async def _list(state: State, *, everything: bool) -> tuple[list[Environment], str | None]:
    from sojourn.store import environments

    async with state.open_store() as store:
        found = await store.read(environments.list_all, state.tenant, include_archived=everything)
        return found, await store.read(environments.default_id, state.tenant)


@env.command("show")
@common_options
@click.argument("name")
@pass_state
def show_environment(state: State, /, *, name: str) -> int:
    """Show one environment, by name or id. Secrets are shown as what is stored: their references.

    \b
    Example:
      sojourn env show local
    """

    present(state, run_async(find(state, name)))
    return 0


@env.command("archive")
@common_options
@click.argument("name")
@pass_state
def archive_environment(state: State, /, *, name: str) -> int:
    """Take an environment out of use. Leases in it go on, and its row stays.

    \b
    Example:
      sojourn env archive scratch
    """

    return _set_status(state, name, archived=True)


@env.command("unarchive")
@common_options
@click.argument("name")
@pass_state
def unarchive_environment(state: State, /, *, name: str) -> int:
    """Take an archived environment into use again; its configuration is checked first.

    \b
    Example:
      sojourn env unarchive scratch
    """
    return _set_status(state, name, archived=False)


def _set_status(state: State, name: str, *, archived: bool) -> int:
    async def change() -> Environment:
        from sojourn.records import EnvironmentStatus

        async with state.orchestrator() as orchestrator:
            found = await find(state, name, store=orchestrator.store, ensure=True)
            if archived:
                return await orchestrator.environments.archive(found.id)
            return await orchestrator.environments.update(found.id, status=EnvironmentStatus.ACTIVE)

    found = run_async(change())
    if state.json:
        present(state, found)
    else:
        note(f"environment {found.name} is {found.status}", quiet=state.quiet)
    return 0


@env.command("default")
@common_options
@click.argument("name", required=False)
@click.option("--none", "nothing", is_flag=True, help="Have no default any more: runs use `local` again.")
@pass_state
def default_environment(state: State, /, *, name: str | None, nothing: bool) -> int:
    """Make an environment the one that a run uses when nothing else names one.

    \b
    Examples:
      sojourn env default build
      sojourn env default --none
    """
    if (name is None) is not nothing:
        raise click.UsageError("name an environment, or say --none")

    async def change() -> Environment | None:
        async with state.orchestrator() as orchestrator:
            found = None if name is None else await find(state, name, store=orchestrator.store, ensure=True)
            await orchestrator.environments.set_default(found.id if found else None)
            return found

    found = run_async(change())
    if state.json:
        print_json({"default_id": found.id if found else None})
    elif found:
        note(f"environment {found.name} is the default of tenant {state.tenant}", quiet=state.quiet)
    else:
        note(f"tenant {state.tenant} has no default: runs use local", quiet=state.quiet)
    return 0
