"""Options that every way to run a command has: its time limit, its grace, its variables."""

from __future__ import annotations

import click

from sojourn.cli.types import ASSIGNMENT, DURATION

__all__ = ["grace_option", "timeout_option", "variable_option"]

timeout_option = click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    metavar="TIME",
    help="End the command after this time, e.g. 90s, 10m.  [default: no limit]",
)
grace_option = click.option(
    "--grace",
    "grace_seconds",
    type=DURATION,
    metavar="TIME",
    help="Between TERM and KILL when the command is ended.  [default: 5s]",
)
variable_option = click.option(
    "-e",
    "env",
    type=ASSIGNMENT,
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable for the command; may be repeated. It is visible in our own argument list: for secrets use --secret.",
)
