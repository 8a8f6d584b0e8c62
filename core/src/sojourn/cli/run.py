"""``sojourn run``: one command in a leased place, with its own streams and exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sojourn.cli.command_options import grace_option, timeout_option, variable_option
from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.types import SECRET

__all__ = ["MODES", "run"]

MODES = ("in_place", "copy", "git_worktree")


@click.command(context_settings={"allow_interspersed_args": False})
@common_options
@click.option(
    "--env",
    "environment",
    metavar="NAME",
    help="Environment, by name or id.  [default: as resolved, see `sojourn explain`]",
)
@click.option(
    "--workspace",
    metavar="DIR",
    default=".",
    show_default="the current directory",
    help="The tree that the command works on.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    show_default="in_place",
    help="in_place: the tree itself. copy: a copy of it (in a git tree what git tracks or does not ignore), thrown away at the "
    "end. git_worktree: a git worktree of its last commit; changes are kept on a branch.",
)
@click.option(
    "--branch",
    metavar="BRANCH",
    help="With --mode git_worktree: an existing branch to work on.  [default: a new one, sojourn/RESOURCE]",
)
@timeout_option
@grace_option
@click.option(
    "--provision",
    metavar="CMD",
    help="Set-up command for a login shell, before the command. Runs in the place, not in your own tree.  [default: none]",
)
@click.option(
    "--provision-in-place",
    is_flag=True,
    help="Run --provision also in your own tree, with --mode in_place on this machine.",
)
@click.option(
    "--teardown",
    metavar="CMD",
    help="Command for a login shell before the place is given back, also after a failure.  [default: none]",
)
@click.option(
    "--declared-commands",
    is_flag=True,
    help="Run what sojourn.toml says as set-up and teardown also on this machine: in a copy or a git worktree, never in your "
    "own tree.",
)
@click.option("--no-config", is_flag=True, help="Read no sojourn.toml.")
@variable_option
@click.option(
    "--secret",
    "secrets",
    type=SECRET,
    multiple=True,
    metavar="NAME=REF",
    help="Set a variable to a secret, named by where it is: env:VARIABLE or file:PATH. Only the reference is stored.",
)
@click.option(
    "--run-id", metavar="ID", help="Name of this run in records; two runs of one id share no lease.  [default: none]"
)
@click.option(
    "--agent", "agent_id", metavar="ID", help="Agent on whose behalf the command runs, for records.  [default: none]"
)
@click.option("-n", "--no-stdin", is_flag=True, help="Give the command an empty stdin; without it, it gets ours.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors and warnings.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@pass_state
def run(state: State, /, *, quiet: bool, **options: Any) -> int:
    """Run a command in a place of its own, then give the place back.

    Leases a place in the chosen environment, brings the workspace there, runs COMMAND with our stdin, stdout and stderr, and
    gives the place back: when the command is done, when it fails, when it takes too long, when you press Ctrl-C.

    \b
    Examples:
      sojourn run -- make test
      sojourn run --mode copy -- sh -c 'pip install . && pytest -q'
      sojourn run --mode git_worktree --timeout 30m -- my-agent --task fix-the-bug
      sojourn run --secret TOKEN=env:MY_TOKEN -e CI=1 -- ./publish
      tar c src | sojourn run -- tar t | head -3

    What a sojourn.toml in the tree, or above it, says as [defaults] holds where no option says otherwise; `sojourn explain`
    shows what that is.

    The command's words are passed on as they are. There is no shell unless you name one, and no terminal. It sees PATH,
    HOME and a few more variables, and what -e and --secret name; not the rest of our environment.

    \b
    Exit status:
      the command's own, or 128+n if signal n killed it
      124  ended at --timeout            126, 127  not executable, not found
      130  Ctrl-C (143 SIGTERM)          125  sojourn could not do it, one line on stderr says why
      141  nobody reads our output any more

    The first Ctrl-C ends the command with all its processes and gives the place back; the second one stops waiting for
    that, and `sojourn reap` does the rest.

    With --json the output is not shown live: stdout gets one document at the end, with the outcome, the output, the lease,
    the environment, and why it was chosen.
    """
    state.failure_status = 125
    state.set_quiet(quiet)
    if options["branch"] is not None and options["mode"] not in (None, "git_worktree"):
        raise _branch_alone()
    from sojourn.cli import declared
    from sojourn.cli.running import Run, RunOptions

    found = declared.read(options["workspace"], ignored=options["no_config"])
    options, _ = found.filled(options)
    if options["branch"] is not None and options["mode"] != "git_worktree":
        raise _branch_alone()
    wanted = RunOptions(
        **{name: options[name] for name in _PLAIN},
        workspace=str(Path(options["workspace"]).absolute()),
        env=dict(options["env"]),
        secrets=dict(options["secrets"]),
        stdin=not options["no_stdin"],
    )
    return run_async(Run(state, wanted, found).run())


def _branch_alone() -> click.UsageError:
    return click.UsageError("--branch goes with --mode git_worktree")


_PLAIN = (
    "command",
    "environment",
    "mode",
    "branch",
    "timeout_seconds",
    "grace_seconds",
    "provision",
    "provision_in_place",
    "teardown",
    "declared_commands",
    "run_id",
    "agent_id",
)
