"""``sojourn env add``: store a new environment, asking a person for what its driver needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli import terminal
from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.env_options import changed_config, config_options, field_options, plain_changes, timeouts_of
from sojourn.cli.env_probe import probe_stored
from sojourn.cli.env_stored import find, present, show_probe
from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import note

if TYPE_CHECKING:
    from sojourn.records import Environment

__all__ = ["add_environment"]


@click.command("add")
@common_options
@click.argument("name")
@click.option("--driver", metavar="DRIVER", help="Name of an installed driver; `sojourn drivers` lists them.")
@config_options
@field_options
@click.option("--defaults", is_flag=True, help="Ask only for what has no default.")
@click.option("--no-input", is_flag=True, help="Ask nothing, also on a terminal.")
@click.option("--probe/--no-probe", default=None, help="Ask the driver whether it is usable.  [default: asks]")
@pass_state
def add_environment(state: State, /, *, name: str, driver: str | None, **options: Any) -> int:
    """Store a new environment; its configuration is checked first.

    On a terminal it asks for what the driver needs and the options do not say, and offers a probe at the end. A wrong answer is
    asked again, with the reason. A secret is never typed: what is asked for is where it is, env:NAME or file:PATH.

    \b
    Examples:
      sojourn env add build
      sojourn env add scratch --driver local --set root=/var/tmp/sojourn
      sojourn env add ci --driver local --set 'pass_env=["CI"]' -e MAKEFLAGS=-j2 --secret TOKEN=env:CI_TOKEN
      sojourn env add big --driver local --config big.json --max-leases 2 --timeout acquire=20m
    """
    asking = terminal.present() and not options["no_input"] and options["config_file"] != "-"
    if driver is None and not asking:
        raise click.UsageError("Missing option '--driver'.")
    fields = {
        **plain_changes(options),
        "env": _variables(options),
        "timeouts": timeouts_of(options["timeouts"]),
    }
    driver, config = _settled(state, name, driver, options, asking=asking)
    found = run_async(_create(state, name, driver, config, fields))
    if not state.json:
        note(f"environment {found.name} is stored ({found.id})", quiet=state.quiet)
    wanted = options["probe"]
    if wanted is None:
        wanted = asking and terminal.confirm("Probe it now?", default=True)
    probed = run_async(probe_stored(state, found.id)) if wanted else None
    if state.json:
        present(state, found, probe=probed)
    elif probed is not None:
        show_probe(probed)
    return 0


def _variables(options: dict[str, Any]) -> dict[str, Any]:
    from sojourn.secrets import Secret

    return {**dict(options["variables"]), **{key: Secret(ref) for key, ref in options["secrets"]}}


def _settled(
    state: State, name: str, driver: str | None, options: dict[str, Any], *, asking: bool
) -> tuple[str, dict[str, Any]]:
    """Return driver and configuration, complete and not yet stored."""
    from sojourn.configfields import config_fields
    from sojourn.drivers import DriverRegistry
    from sojourn.stored_environments import check_name

    registry = DriverRegistry()
    if asking:
        run_async(_refuse_taken(state, name))
    if driver is None:
        from sojourn.cli.env_questions import ask_driver

        driver = ask_driver(registry.names())
    check_name(name, driver)
    loaded = registry.get(driver)
    known = config_fields(loaded.info.config_class)
    config = changed_config({}, options["config_file"], options["settings"], known)
    path = f"environments.{name}.config"
    if asking:
        from sojourn.cli.env_questions import ask_config

        return driver, ask_config(loaded, config, path, defaults=options["defaults"])
    missing = [field.name for field in known if field.required and field.name not in config]
    if missing:
        hint = "say each with --set KEY=VALUE, or --config FILE"
        raise CommandLineError(f"{path}: driver {driver} needs {', '.join(missing)}; {hint}", "invalid_config")
    return driver, config


async def _refuse_taken(state: State, name: str) -> None:
    """Before anything is asked: answers to no avail are lost."""
    from sojourn.errors import EnvironmentRunError

    try:
        found = await find(state, name)
    except EnvironmentRunError:
        return
    if found.id:
        raise CommandLineError(
            f"there is an environment {name!r} already; `sojourn env edit {name}` changes it", "duplicate_name"
        )


async def _create(state: State, name: str, driver: str, config: dict[str, Any], fields: dict[str, Any]) -> Environment:
    async with state.orchestrator() as orchestrator:
        return await orchestrator.environments.create(name, driver, config, **fields)
