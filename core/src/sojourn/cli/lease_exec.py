"""``sojourn lease exec`` and ``sojourn lease shell``: go to where a run is, and look or help by hand."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.command_options import grace_option, timeout_option, variable_option
from sojourn.cli.context import State, common_options, operator, pass_state, run_async
from sojourn.cli.failures import CommandLineError
from sojourn.cli.lease_lookup import existing
from sojourn.cli.output import line, print_json
from sojourn.cli.types import SECRET

if TYPE_CHECKING:
    from sojourn.models import ConnectionInfo

__all__ = ["exec_in_lease", "open_shell"]

FAILED_STATUS = 125


@click.command("exec")
@common_options
@click.argument("lease_id", metavar="ID")
@timeout_option
@grace_option
@click.option(
    "--cwd", metavar="DIR", help="Where it runs; a relative one is below the workspace.  [default: the workspace]"
)
@variable_option
@click.option(
    "--secret",
    "secrets",
    type=SECRET,
    multiple=True,
    metavar="NAME=REF",
    help="Set a variable to a secret, named by where it is: env:VARIABLE or file:PATH.",
)
@click.option("-n", "--no-stdin", is_flag=True, help="Give the command an empty stdin; without it, it gets ours.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@pass_state
def exec_in_lease(state: State, /, **options: Any) -> int:
    """Run one more command where an active lease is, whoever holds it.

    It runs beside what the run itself does, in the same workspace, with our stdin, stdout and stderr, and with the variables
    of the environment and those of -e and --secret; not those that the run got on top. When it is done the lease goes on as
    before. When the lease ends first, the command is ended with it.

    \b
    Examples:
      sojourn lease exec lease_01m83k955e4hhdc0txwyxb -- ps aux
      sojourn lease exec lease_01m83k955e4hhdc0txwyxb --cwd build --timeout 1m -- make -n
      tar c notes | sojourn lease exec lease_01m83k955e4hhdc0txwyxb -- tar x

    What stands after `--` is passed on as it is. There is no shell unless you name one, and no terminal: for that there is
    `sojourn lease shell`.

    \b
    Exit status:
      the command's own, or 128+n if signal n killed it
      124  ended at --timeout            126, 127  not executable, not found
      130  Ctrl-C (143 SIGTERM)          125  sojourn could not do it, one line on stderr says why
      141  nobody reads our output any more

    With --json the output is not shown live: stdout gets one document at the end.
    """
    state.failure_status = FAILED_STATUS
    from sojourn.cli.lease_attached import AttachedOptions, AttachedRun

    wanted = AttachedOptions(
        lease_id=options["lease_id"],
        command=options["command"],
        timeout_seconds=options["timeout_seconds"],
        grace_seconds=options["grace_seconds"],
        cwd=options["cwd"],
        env=dict(options["env"]),
        secrets=dict(options["secrets"]),
        stdin=not options["no_stdin"],
    )
    return run_async(AttachedRun(state, wanted).run())


@click.command("shell")
@common_options
@click.argument("lease_id", metavar="ID")
@click.option("--print", "printed", is_flag=True, help="Only print the command, quoted, to paste into a terminal.")
@pass_state
def open_shell(state: State, /, *, lease_id: str, printed: bool) -> int:
    """Open a shell where an active lease is, with this terminal.

    The lease's driver says how one gets there, e.g. a shell in its folder, ssh or `docker exec`; that command takes our
    place. It is yours and not the run's: nothing of it is recorded, and when the lease ends it may go on in a place that is
    gone.

    \b
    Examples:
      sojourn lease shell lease_01m83k955e4hhdc0txwyxb
      sojourn lease shell --print lease_01m83k955e4hhdc0txwyxb

    With --json the command is printed as a document and not run. Exit status: the shell's own; 125 sojourn could not do it,
    one line on stderr says why; with --print or --json 0.
    """
    state.failure_status = FAILED_STATUS
    info = run_async(_connection(state, lease_id))
    if state.json:
        print_json({"lease_id": lease_id, "command": list(info.command), "ports": dict(info.ports)})
        return 0
    if printed:
        line(shlex.join(info.command))
        return 0
    return _become(info.command)


async def _connection(state: State, lease_id: str) -> ConnectionInfo:
    async with state.orchestrator() as orchestrator:
        await existing(state, orchestrator.store, lease_id)
        return await orchestrator.leases.connection(lease_id, actor=operator())


def _become(command: tuple[str, ...]) -> int:
    """Let the command take our place: the terminal, Ctrl-C and the exit status are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and what is ignored stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - that is what was asked for
    except OSError as error:
        raise CommandLineError(f"cannot run {command[0]}: {error.strerror}", "shell_failed") from error
