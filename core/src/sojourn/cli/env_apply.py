"""``sojourn env apply`` and ``env schema``: bring the store to what a repository declares; help editors to write that."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli import terminal
from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import line, note, print_json

if TYPE_CHECKING:
    from sojourn.declaration_changes import Change
    from sojourn.declarations import Declaration

__all__ = ["apply_declaration", "print_schema"]


@click.command("apply")
@common_options
@click.option(
    "--file",
    metavar="FILE",
    help="The declaration.  [default: the nearest sojourn.toml, or pyproject.toml with [tool.sojourn], from here upwards]",
)
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; without a terminal nothing is asked anyway.")
@pass_state
def apply_declaration(state: State, /, *, file: str | None, dry_run: bool, yes: bool) -> int:
    """Store the environments that a repository declares; what is stored already is changed to what is declared.

    Shows what would change, asks, and then does all of it or nothing. What is stored and not declared is left alone. Leases
    that are out keep what they were acquired with.

    \b
    Examples:
      sojourn env apply --dry-run
      sojourn env apply --file ../sojourn.toml --yes
    """
    path = _file(file)
    declaration, planned, undeclared = run_async(_plan(state, path))
    changing = [change for change in planned if change.action != "unchanged"]
    if not state.json:
        _show(path, declaration, planned, undeclared)
    question = f"Apply these changes to {', '.join(change.name for change in changing)}?"
    if changing and not dry_run and not yes and terminal.present() and not terminal.confirm(question):
        note("nothing was applied", quiet=state.quiet)
        if state.json:
            print_json(_document(path, planned, undeclared, applied=False))
        return 1
    applied = not dry_run
    if applied and changing:
        run_async(_apply(state, declaration, planned))
    if state.json:
        print_json(_document(path, planned, undeclared, applied=applied))
    elif applied and changing:
        note(f"applied: {', '.join(change.name for change in changing)}", quiet=state.quiet)
    return 0


def _file(named: str | None) -> Path:
    from sojourn.declaration_search import find_declaration

    path = Path(named).absolute() if named is not None else find_declaration(Path())
    if path is None:
        raise CommandLineError(
            "no sojourn.toml, and no pyproject.toml with [tool.sojourn], from here up to the repository's root; "
            "--file names one",
            "declaration_not_found",
        )
    return path


async def _plan(state: State, path: Path) -> tuple[Declaration, list[Change], list[str]]:
    from sojourn.declaration_changes import plan_changes
    from sojourn.declarations import read_declaration
    from sojourn.drivers import DriverRegistry
    from sojourn.store import environments

    registry = DriverRegistry()
    declaration = read_declaration(path, registry)
    async with state.open_store() as store:
        stored = await store.read(environments.list_all, state.tenant, include_archived=True)
    planned = plan_changes(declaration, stored, _versions(declaration, registry))
    return declaration, planned, [e.name for e in stored if e.name not in declaration.environments]


async def _apply(state: State, declaration: Declaration, planned: Sequence[Change]) -> None:
    from sojourn.declaration_changes import apply_changes
    from sojourn.drivers import DriverRegistry

    versions = _versions(declaration, DriverRegistry())
    async with state.open_store() as store:
        await store.run(apply_changes, state.tenant, declaration, planned, versions)


def _versions(declaration: Declaration, registry: Any) -> dict[str, int]:
    names = {declared.driver for declared in declaration.environments.values()}
    return {name: registry.get(name).info.config_version for name in names}


def _show(path: Path, declaration: Declaration, planned: Sequence[Change], undeclared: Sequence[str]) -> None:
    line(f"Declared in {path}:")
    for change in planned:
        if change.action == "create":
            line(f"  + {change.name}: create, on driver {declaration.environments[change.name].driver}")
            for field, value in _said(declaration, change.name).items():
                line(f"      {field}: {_text(value)}")
        elif change.action == "update":
            line(f"  ~ {change.name}: change")
            for field, (before, after) in change.fields.items():
                line(f"      {field}: {_text(before)} → {_text(after)}")
        else:
            line(f"  = {change.name}: unchanged")
    if not planned:
        line("  no environments")
    if undeclared:
        line(f"Stored and not declared, left alone: {', '.join(undeclared)}")
    # In one log the changes come before what is said about them.
    sys.stdout.flush()


def _said(declaration: Declaration, name: str) -> dict[str, Any]:
    from sojourn import wire
    from sojourn.declaration_changes import changed_fields
    from sojourn.declarations import DeclaredEnvironment

    declared = declaration.environments[name]
    nothing = wire.dump(DeclaredEnvironment(driver=declared.driver))
    return {field: after for field, (_, after) in changed_fields(nothing, wire.dump(declared))}


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict) and set(value) == {"secret"}:
        return f"secret {value['secret']}"
    return json.dumps(value, ensure_ascii=False)


def _document(path: Path, planned: Sequence[Change], undeclared: Sequence[str], *, applied: bool) -> dict[str, Any]:
    return {
        "file": str(path),
        "applied": applied,
        "changes": [
            {
                "name": change.name,
                "action": change.action,
                "fields": [
                    {"field": field, "before": before, "after": after}
                    for field, (before, after) in change.fields.items()
                ],
            }
            for change in planned
        ],
        "undeclared": list(undeclared),
    }


@click.command("schema")
@common_options
def print_schema() -> int:
    """Print the JSON Schema of sojourn.toml, with the configurations of the installed drivers, for editors.

    \b
    Example:
      sojourn env schema > .sojourn.schema.json

    An editor that knows TOML then helps when the first line of sojourn.toml is `#:schema ./.sojourn.schema.json`.
    """
    from sojourn.declaration_schema import schema
    from sojourn.discovery import LoadedDriver
    from sojourn.drivers import DriverRegistry

    print_json(schema([found for found in DriverRegistry().listing() if isinstance(found, LoadedDriver)]))
    return 0
