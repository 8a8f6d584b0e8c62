"""``sojourn drivers``: which drivers are installed, what they offer, and why one is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state
from sojourn.cli.output import print_json, table

if TYPE_CHECKING:
    from sojourn.discovery import BrokenDriver, LoadedDriver

__all__ = ["drivers"]


@click.group(invoke_without_command=True)
@common_options
@click.pass_context
def drivers(ctx: click.Context) -> int:
    """Show the installed drivers.

    A driver makes one kind of environment usable; others are added by installing a package. Each is loaded for this, and
    one that cannot be is shown with the reason; the others still work.

    \b
    Examples:
      sojourn drivers
      sojourn drivers --json

    Exit status: 0, also when a driver is broken; `sojourn doctor` makes that an error, and probes them.
    """
    if ctx.invoked_subcommand is None:
        return int(ctx.invoke(list_drivers))
    return 0


@drivers.command("list")
@common_options
@pass_state
def list_drivers(state: State, /) -> int:
    """Show the installed drivers; the same as `sojourn drivers`."""
    from sojourn.drivers import DriverRegistry

    rows = [_row(found) for found in DriverRegistry().listing()]
    if state.json:
        print_json(rows)
        return 0
    table(
        ("NAME", "STATUS", "VERSION", "DISTRIBUTION", "ISOLATION", "TRANSPORT", "TRANSFERS", "HOOKS"),
        [
            (
                row["name"],
                row["status"],
                row["version"],
                row["distribution"],
                row["isolation"],
                row["transport"],
                ",".join(row["transfers"]),
                row["reason"] or ",".join(row["hooks"]),
            )
            for row in rows
        ],
    )
    return 0


def _row(found: LoadedDriver | BrokenDriver) -> dict[str, Any]:
    from sojourn.discovery import BrokenDriver
    from sojourn.hooks import DRIVER_HOOKS

    row: dict[str, Any] = {"name": found.name, "distribution": found.distribution}
    if isinstance(found, BrokenDriver):
        empty = dict.fromkeys(("version", "api_version", "provider", "isolation", "transport"))
        return row | {"status": "broken", "reason": found.reason, **empty, "transfers": [], "hooks": []}
    info = found.info
    return row | {
        "status": "ok",
        "reason": None,
        "version": info.version,
        "api_version": info.api_version,
        "provider": info.provider,
        "isolation": info.isolation,
        "transport": info.transport,
        "transfers": list(info.transfers),
        "hooks": [hook for hook in DRIVER_HOOKS if found.has(hook)],
    }
