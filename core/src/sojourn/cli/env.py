"""``sojourn env``: stored environments, the named places to run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import block, fields, heading, note, print_json, table
from sojourn.cli.types import ASSIGNMENT, SECRET

if TYPE_CHECKING:
    from sojourn.records import Environment

__all__ = ["env"]

MAX_CONFIG_BYTES = 1024 * 1024


@click.group()
@common_options
def env() -> None:
    """Manage environments: the named places to run.

    An environment is a driver with its configuration. There is always one called `local`: this machine.
    """


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

    async def get() -> Environment:
        async with state.orchestrator() as orchestrator:
            return await orchestrator.environments.get(name)

    _present(state, run_async(get()))
    return 0


def _present(state: State, found: Environment) -> None:
    from sojourn.cli import documents

    plain = documents.environment(found)
    if state.json:
        print_json({"environment": plain})
        return
    names = ("name", "id", "tenant", "status", "driver", "policy", "max_leases", "require_probe", "description")
    fields({name.replace("_", " "): getattr(found, name) for name in names})
    for name in ("config", "env", "timeouts"):
        if plain[name]:
            heading(name.capitalize())
            block(json.dumps(plain[name], indent=2, ensure_ascii=False))


@env.command("add")
@common_options
@click.argument("name")
@click.option(
    "--driver", required=True, metavar="DRIVER", help="Name of an installed driver; `sojourn drivers` lists them."
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="JSON object with the driver's configuration; - reads stdin.  [default: empty]",
)
@click.option(
    "--set",
    "settings",
    type=ASSIGNMENT,
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one value of the configuration, over --config; may be repeated. KEY may have dots; VALUE is JSON, else text.",
)
@click.option(
    "-e",
    "variables",
    type=ASSIGNMENT,
    multiple=True,
    metavar="NAME=VALUE",
    help="Variable for every command; may be repeated.",
)
@click.option(
    "--secret",
    "secrets",
    type=SECRET,
    multiple=True,
    metavar="NAME=REF",
    help="Variable whose value is a secret, named by where it is: env:VARIABLE or file:PATH.",
)
@click.option(
    "--max-leases", type=click.IntRange(min=1), metavar="N", help="How many places at once.  [default: no limit]"
)
@click.option("--description", default="", metavar="TEXT", help="For people.  [default: none]")
@pass_state
def add_environment(state: State, /, *, name: str, driver: str, **options: Any) -> int:
    """Store a new environment; its configuration is checked first.

    \b
    Examples:
      sojourn env add scratch --driver local --set root=/var/tmp/sojourn
      sojourn env add ci --driver local --set 'pass_env=["CI"]' -e MAKEFLAGS=-j2 --secret TOKEN=env:CI_TOKEN
      sojourn env add big --driver local --config big.json
    """
    config = _config(options["config_file"], options["settings"])

    async def create() -> Environment:
        from sojourn.secrets import Secret

        async with state.orchestrator() as orchestrator:
            return await orchestrator.environments.create(
                name,
                driver,
                config,
                env={**dict(options["variables"]), **{key: Secret(ref) for key, ref in options["secrets"]}},
                max_leases=options["max_leases"],
                description=options["description"],
            )

    found = run_async(create())
    if state.json:
        _present(state, found)
    else:
        note(f"environment {found.name} is stored ({found.id})", quiet=state.quiet)
    return 0


def _config(file: str | None, settings: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    config = _read_config(file) if file is not None else {}
    for key, text in settings:
        place = config
        *outer, last = key.split(".")
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"--set {key}: {part} is not an object")
        place[last] = _value(text)
    return config


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_config(file: str) -> dict[str, Any]:
    try:
        data = sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1) if file == "-" else _read(file)
        if len(data) > MAX_CONFIG_BYTES:
            raise CommandLineError(f"--config {file}: is larger than {MAX_CONFIG_BYTES} bytes", "invalid_config")
        found = json.loads(data)
    except OSError as error:
        raise CommandLineError(f"--config {file}: {error.strerror}", "invalid_config") from None
    except (ValueError, RecursionError) as error:
        # The place in the file, not the text there: it may be private.
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "cannot be read"
        raise CommandLineError(f"--config {file}: not JSON ({where})", "invalid_config") from None
    if not isinstance(found, dict):
        raise CommandLineError(f"--config {file}: must hold a JSON object", "invalid_config")
    return found


def _read(file: str) -> bytes:
    with Path(file).open("rb") as stream:
        return stream.read(MAX_CONFIG_BYTES + 1)


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

    async def archive() -> Environment:
        async with state.orchestrator() as orchestrator:
            return await orchestrator.environments.archive(name)

    found = run_async(archive())
    if state.json:
        _present(state, found)
    else:
        note(f"environment {found.name} is archived", quiet=state.quiet)
    return 0
