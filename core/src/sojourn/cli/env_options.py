"""The options that say what an environment is; `env add`, `env edit` and `env probe` share them."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sojourn.cli.failures import CommandLineError
from sojourn.cli.types import ASSIGNMENT, DURATION, SECRET

if TYPE_CHECKING:
    from sojourn.configfields import ConfigField

__all__ = ["changed_config", "config_options", "field_options", "plain_changes", "setting_value", "timeouts_of"]

F = TypeVar("F", bound=Callable[..., Any])
MAX_CONFIG_BYTES = 1024 * 1024
POLICIES = ("ephemeral", "reuse_by_environment", "reuse_by_execution_workspace", "retain_on_failure")


def _decorated(command: F, options: Sequence[Callable[[F], F]]) -> F:
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def config_options(command: F) -> F:
    """Add what says the driver's configuration: ``--config`` and ``--set``."""
    return _decorated(
        command,
        [
            click.option(
                "--config",
                "config_file",
                metavar="FILE",
                help="JSON object with the driver's configuration; - reads stdin.  [default: empty]",
            ),
            click.option(
                "--set",
                "settings",
                type=ASSIGNMENT,
                multiple=True,
                metavar="KEY=VALUE",
                help="Set one value of the configuration, over --config; may be repeated. KEY may have dots; a list or an "
                "object is JSON. A secret is a reference, env:VARIABLE or file:PATH.",
            ),
        ],
    )


def field_options(command: F) -> F:
    """Add what says the rest of an environment."""
    return _decorated(
        command,
        [
            click.option(
                "-e",
                "variables",
                type=ASSIGNMENT,
                multiple=True,
                metavar="NAME=VALUE",
                help="Variable for every command; may be repeated.",
            ),
            click.option(
                "--secret",
                "secrets",
                type=SECRET,
                multiple=True,
                metavar="NAME=REF",
                help="Variable whose value is a secret, named by where it is: env:VARIABLE or file:PATH.",
            ),
            click.option(
                "--policy",
                type=click.Choice(POLICIES),
                help="What becomes of a place when its run is over.  [default: ephemeral]",
            ),
            click.option(
                "--max-leases",
                type=click.IntRange(min=1, max=2**31 - 1),
                metavar="N",
                help="How many places at once.  [default: no limit]",
            ),
            click.option(
                "--require-probe/--no-require-probe",
                default=None,
                help="Probe before every lease.  [default: no]",
            ),
            click.option(
                "--timeout",
                "timeouts",
                type=ASSIGNMENT,
                multiple=True,
                metavar="HOOK=TIME",
                help="Time limit of acquire, realize, provision, release, probe or resume, e.g. acquire=20m; may be "
                "repeated.  [default: see the settings]",
            ),
            click.option("--description", metavar="TEXT", help="For people.  [default: none]"),
        ],
    )


def plain_changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain fields that the options name."""
    names = ("policy", "max_leases", "require_probe", "description")
    found = {name: options[name] for name in names if options[name] is not None}
    if "policy" in found:
        from sojourn.records import LeasePolicy

        found["policy"] = LeasePolicy(found["policy"])
    return found


def timeouts_of(given: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the time limits by hook; whether there is such a hook is checked where it is stored."""
    return {hook: float(DURATION.convert(text, None, None)) for hook, text in given}


def changed_config(
    before: Mapping[str, Any],
    file: str | None,
    settings: Sequence[tuple[str, str]],
    known: Sequence[ConfigField],
    unset: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the configuration that the options say.

    Args:
        before: what it is without them.
        file: replaces it.
        settings: over that.
        known: the driver's fields, which tell text from JSON.
        unset: keys that are taken out first.
    """
    config: dict[str, Any] = _read_config(file) if file is not None else json.loads(json.dumps(dict(before)))
    for key in unset:
        place, last = _place(config, key, "--unset")
        if last not in place:
            raise CommandLineError(f"--unset {key}: the configuration does not say it", "invalid_config")
        del place[last]
    fields = {field.name: field for field in known}
    for key, text in settings:
        place, last = _place(config, key, "--set")
        place[last] = setting_value(fields.get(key), text)
    return config


def _place(config: dict[str, Any], key: str, option: str) -> tuple[dict[str, Any], str]:
    *outer, last = key.split(".")
    place = config
    for part in outer:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise click.UsageError(f"{option} {key}: {part} is not an object")
    return place, last


def setting_value(field: ConfigField | None, text: str) -> Any:
    """Return what ``text`` means: JSON, or just text where it is none or where the field wants text (``3.11``)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if field is None or field.kind not in ("text", "choice", "secret"):
        return value
    return value if isinstance(value, str) or (value is None and field.optional) else text


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
