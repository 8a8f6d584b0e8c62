"""``sojourn completion``: completion for a shell, and the quick looks behind it that never fail and never make a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sojourn.cli.context import State, common_options

if TYPE_CHECKING:
    import sqlite3

    from click.shell_completion import CompletionItem

__all__ = ["complete_names", "completion"]

VARIABLE = "_SOJOURN_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
MOST_LEASES = 50
_Look = Callable[["sqlite3.Connection", str, str], Iterator[tuple[str, str]]]


@click.command()
@common_options
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, /, *, shell: str) -> int:
    """Print a script that makes SHELL complete sojourn's commands, options, environments, leases and drivers.

    Let the shell read it when it starts:

    \b
      bash   in ~/.bashrc:   eval "$(sojourn completion bash)"
      zsh    in ~/.zshrc:    eval "$(sojourn completion zsh)"
      fish   once:           sojourn completion fish > ~/.config/fish/completions/sojourn.fish

    \b
    Example:
      sojourn completion bash > /etc/bash_completion.d/sojourn

    bash has to be 4.4 or newer. Names are completed from an SQLite store only. Exit status: 0 printed, 2 no such shell.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(made(ctx.find_root().command, {}, "sojourn", VARIABLE).source())
    return 0


# -- names ------------------------------------------------------------------------------------------------------------


class _Name(click.types.StringParamType):
    """Text that is completed with names out of the store.

    Args:
        look: yields names and what to say about each.
    """

    def __init__(self, look: _Look) -> None:
        self._look = look

    def shell_complete(self, ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin like that; nothing when the store cannot tell."""
        from click.shell_completion import CompletionItem

        state = ctx.find_object(State) or State()
        try:
            return [
                CompletionItem(name, help=about)
                for name, about in _looked(state, self._look, incomplete)
                if name.startswith(incomplete)
            ]
        except Exception:  # noqa: BLE001 - somebody is in the middle of a line: there is nobody to tell
            return []


class _Driver(click.types.StringParamType):
    """Text that is completed with the names of installed drivers."""

    def shell_complete(self, _: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin like that; no driver is loaded for it."""
        from importlib.metadata import entry_points

        from click.shell_completion import CompletionItem

        try:
            names = sorted({point.name for point in entry_points(group="sojourn.drivers")})
        except Exception:  # noqa: BLE001 - as above
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _looked(state: State, look: _Look, incomplete: str) -> list[tuple[str, str]]:
    import sqlite3
    from contextlib import closing
    from urllib.parse import quote

    path = _store_file(state)
    if path is None:
        return []
    # Past the store: it would make the file, upgrade it, and load SQLAlchemy first. `mode=ro` makes nothing.
    with closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, timeout=0.2)) as db:
        return list(look(db, state.tenant, incomplete))


def _store_file(state: State) -> Path | None:
    named = state.store or os.environ.get("SOJOURN_STORE")
    if named is None:
        from sojourn.paths import state_dir

        return state_dir() / "sojourn.db"
    if "://" not in named:
        return Path(named).expanduser().absolute()
    kind, _, path = named.partition(":///")
    return Path(path).absolute() if kind.split("+")[0] == "sqlite" else None


def _environments(db: sqlite3.Connection, tenant: str, _: str) -> Iterator[tuple[str, str]]:
    rows = db.execute(
        "SELECT name, driver FROM environments WHERE tenant = ? AND status = 'active' ORDER BY name", (tenant,)
    )
    found = {name: f"driver {driver}" for name, driver in rows}
    # It is there without having been stored.
    yield from sorted({"local": "this machine", **found}.items())


def _leases(*statuses: str) -> _Look:
    def look(db: sqlite3.Connection, tenant: str, incomplete: str) -> Iterator[tuple[str, str]]:
        wanted = f"AND status IN ({', '.join('?' * len(statuses))})" if statuses else ""
        rows = db.execute(
            "SELECT id, status, environment_name FROM leases WHERE tenant = ? AND substr(id, 1, ?) = ? "  # noqa: S608
            f"{wanted} ORDER BY created_at DESC, id DESC LIMIT {MOST_LEASES}",
            (tenant, len(incomplete), incomplete, *statuses),
        )
        for lease_id, status, environment in rows:
            yield lease_id, f"{status} in {environment}"

    return look


_UNENDED = ("waiting", "acquiring", "active", "releasing", "retained", "pending_cleanup")
_COMPLETED: dict[tuple[str, ...], dict[str, _Name | _Driver]] = {
    ("run",): {"environment": _Name(_environments)},
    ("explain",): {"environment": _Name(_environments)},
    ("env", "show"): {"name": _Name(_environments)},
    ("env", "edit"): {"name": _Name(_environments)},
    ("env", "probe"): {"name": _Name(_environments)},
    ("env", "archive"): {"name": _Name(_environments)},
    ("env", "remove"): {"name": _Name(_environments)},
    ("env", "add"): {"driver": _Driver()},
    ("lease", "list"): {"environment": _Name(_environments)},
    ("lease", "show"): {"lease_id": _Name(_leases())},
    ("lease", "exec"): {"lease_id": _Name(_leases("active"))},
    ("lease", "shell"): {"lease_id": _Name(_leases("active"))},
    ("lease", "extend"): {"lease_id": _Name(_leases("active"))},
    ("lease", "release"): {"lease_id": _Name(_leases(*_UNENDED))},
    ("lease", "destroy"): {"lease_id": _Name(_leases(*_UNENDED))},
    ("activity",): {"entity_id": _Name(_leases())},
}


def complete_names(app: click.Group) -> None:
    """Give the parameters that name something a type that completes them: one place that knows which do."""
    for words, types in _COMPLETED.items():
        command = _command(app, words)
        for parameter in command.params if command is not None else ():
            if parameter.name in types and parameter.type is click.STRING:
                parameter.type = types[parameter.name]


def _command(group: click.Command, words: Sequence[str]) -> click.Command | None:
    for word in words:
        if not isinstance(group, click.Group) or word not in group.commands:
            return None
        group = group.commands[word]
    return group
