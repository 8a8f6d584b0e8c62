"""``sojourn env edit``: change a stored environment by options, or as a text in an editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.env_options import changed_config, config_options, field_options, plain_changes, timeouts_of
from sojourn.cli.env_stored import find, present
from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import note

if TYPE_CHECKING:
    from sojourn.declarations import DeclaredEnvironment
    from sojourn.records import Environment

__all__ = ["edit_environment"]


@click.command("edit")
@common_options
@click.argument("name")
@click.option("--driver", metavar="DRIVER", help="Another driver.")
@config_options
@field_options
@click.option("--unset", multiple=True, metavar="KEY", help="Take a key out of the configuration; may be repeated.")
@click.option("--unset-env", multiple=True, metavar="NAME", help="Take a variable out; may be repeated.")
@click.option("--unset-timeout", multiple=True, metavar="HOOK", help="Take a time limit out; may be repeated.")
@click.option("--no-max-leases", is_flag=True, help="Have no limit of places any more.")
@click.option("--editor", is_flag=True, help="Open all of it, as JSON, in $VISUAL or $EDITOR.")
@pass_state
def edit_environment(state: State, /, *, name: str, editor: bool, **options: Any) -> int:
    """Change a stored environment. What comes out is checked as a whole before it is stored.

    Leases that are out keep what they were acquired with. --config replaces the configuration, --set changes a value of it.

    \b
    Examples:
      sojourn env edit build --set root=/var/tmp/sojourn --max-leases 4
      sojourn env edit build --unset root --unset-env MAKEFLAGS
      sojourn env edit build --editor
    """
    if not editor and not _said(options):
        raise click.UsageError("nothing to change: name options, or --editor")
    before = run_async(_stored(state, name))
    wanted = _changed(before, options)
    if editor:
        from sojourn.cli.env_editor import edited

        wanted = edited(before.name, wanted)
    changes = _changes(before, wanted)
    if not changes:
        note(f"environment {before.name} is as it was", quiet=state.quiet)
        after = before
    else:
        after = run_async(_update(state, before, changes))
        note(f"environment {after.name} is changed: {', '.join(changes)}", quiet=state.quiet)
    if state.json:
        present(state, after)
    return 0


def _said(options: dict[str, Any]) -> list[Any]:
    """Return the values of the options that were given."""
    flags = {"no_max_leases"}
    return [value for key, value in options.items() if value not in (None, ()) and (key not in flags or value)]


async def _stored(state: State, name: str) -> Environment:
    async with state.open_store() as store:
        return await find(state, name, store=store, ensure=True)


def _changed(before: Environment, options: dict[str, Any]) -> DeclaredEnvironment:
    """Return what the options make of it."""
    import attrs

    from sojourn.configfields import config_fields
    from sojourn.declarations import DeclaredEnvironment
    from sojourn.drivers import DriverRegistry
    from sojourn.secrets import Secret

    driver = options["driver"] or before.driver
    loaded = DriverRegistry().get(driver)
    config = dict(before.config)
    if driver == before.driver and before.config_version != loaded.info.config_version:
        from sojourn import wire

        path = f"environments.{before.name}.config"
        config = wire.dump(loaded.load_config(config, path, version=before.config_version))
    if options["config_file"] or options["settings"] or options["unset"]:
        known = config_fields(loaded.info.config_class)
        config = changed_config(config, options["config_file"], options["settings"], known, options["unset"])
    env = _without(before.env, options["unset_env"], "--unset-env") | dict(options["variables"])
    env |= {key: Secret(reference) for key, reference in options["secrets"]}
    timeouts = _without(before.timeouts, options["unset_timeout"], "--unset-timeout")
    now = DeclaredEnvironment(
        driver=driver,
        config=config,
        env=env,
        policy=before.policy,
        max_leases=None if options["no_max_leases"] else before.max_leases,
        require_probe=before.require_probe,
        timeouts=timeouts | timeouts_of(options["timeouts"]),
        description=before.description,
    )
    return attrs.evolve(now, **plain_changes(options))


def _without(values: Any, names: tuple[str, ...], option: str) -> dict[str, Any]:
    left = dict(values)
    for name in names:
        if name not in left:
            raise CommandLineError(f"{option} {name}: there is none", "invalid_config")
        del left[name]
    return left


def _changes(before: Environment, wanted: DeclaredEnvironment) -> dict[str, Any]:
    from sojourn.declaration_changes import declared_values

    values = declared_values(wanted)
    return {name: value for name, value in values.items() if value != getattr(before, name)}


async def _update(state: State, before: Environment, changes: dict[str, Any]) -> Environment:
    async with state.orchestrator() as orchestrator:
        now = await orchestrator.environments.get(before.id)
        if now.updated_at != before.updated_at:
            message = f"environment {before.name!r} was changed meanwhile by somebody else; nothing was stored"
            raise CommandLineError(message, "environment_changed")
        return await orchestrator.environments.update(before.id, **changes)
