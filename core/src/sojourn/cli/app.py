"""The group of all commands, its global options, and the one place where an exception becomes an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from sojourn import __version__
from sojourn.cli import failures
from sojourn.cli.activity import activity
from sojourn.cli.completion import complete_names, completion
from sojourn.cli.context import State, common_options
from sojourn.cli.db import db
from sojourn.cli.doctor import doctor
from sojourn.cli.drivers import drivers
from sojourn.cli.env import env
from sojourn.cli.explain import explain
from sojourn.cli.lease import lease
from sojourn.cli.reap import reap
from sojourn.cli.run import run

__all__ = ["main"]

SIGPIPE_STATUS = 141
INTERRUPTED_STATUS = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@common_options
@click.option(
    "--tenant",
    metavar="NAME",
    default="default",
    show_default=True,
    help="Whose environments and leases.",
    expose_value=False,
    callback=lambda ctx, _, value: ctx.ensure_object(State).set_tenant(value),
)
@click.option(
    "--quiet",
    "-q",
    is_flag=True,
    help="Say nothing on stderr but errors and warnings.",
    expose_value=False,
    callback=lambda ctx, _, value: ctx.ensure_object(State).set_quiet(value),
)
@click.version_option(__version__, prog_name="sojourn", message="%(prog)s %(version)s")
def app() -> None:
    """Give each run a place to execute, and give the place back.

    `sojourn run -- COMMAND` leases a place in an environment, brings the workspace there, runs the command, and gives the
    place back, also when the command fails or is interrupted. Without any set-up the place is this machine.

    \b
    Examples:
      sojourn run -- make test
      sojourn run --mode copy --timeout 10m -- sh -c 'pytest -q && touch done'
      sojourn lease list
      sojourn reap

    Everything is kept in one SQLite file in your state directory; --store, or the environment variable SOJOURN_STORE,
    names another. With --json a command prints one JSON document on stdout. Exit status: 0 done, 1 not done, 2 wrong
    usage; `sojourn run` gives the command's own.
    """


for command in (run, explain, env, lease, activity, reap, drivers, doctor, db, completion):
    app.add_command(command)
complete_names(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    _fill_standard_descriptors()
    words = list(sys.argv[1:] if arguments is None else arguments)
    state = State()
    try:
        status = app.main(args=words, prog_name="sojourn", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED_STATUS
    except Exception as error:  # noqa: BLE001 - the last resort: whatever it is, it becomes one line and a status
        return failures.report(error, state, words)
    return status if isinstance(status, int) else 0


def _fill_standard_descriptors() -> None:
    """Open those of 0, 1, 2 that our parent has closed: the next file, the database say, would else become our stdout."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is the one that is missing.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - stays open as long as we live
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - the same


def _reader_gone() -> int:
    """Whoever read our stdout has seen enough: end like a program that SIGPIPE killed, without a word."""
    null = os.open(os.devnull, os.O_WRONLY)
    # Python flushes stdout once more at its end, and would complain.
    os.dup2(null, sys.stdout.fileno())
    return SIGPIPE_STATUS
