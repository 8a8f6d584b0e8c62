"""One ``sojourn run``: a session, one command in it, its streams, and the exit status of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

from sojourn.cli import documents
from sojourn.cli.context import State, operator
from sojourn.cli.failures import CommandLineError
from sojourn.cli.interrupts import Interrupts
from sojourn.cli.live import FAILED_STATUS, LiveCommand
from sojourn.cli.output import note, print_json, warn
from sojourn.cli.progress import Progress
from sojourn.cli.worktree_notes import WorktreeNotes
from sojourn.models import ExecuteResult, RunContext, Transfer
from sojourn.realization_records import Overlay, Strategy, Workspace
from sojourn.secrets import Secret
from sojourn.variables import Variables

if TYPE_CHECKING:
    from sojourn.cli.declared import Declared
    from sojourn.orchestrator import Orchestrator
    from sojourn.session import Session

__all__ = ["Run", "RunOptions"]

DEFAULT_LIFETIME = timedelta(hours=24)


@attrs.frozen(kw_only=True)
class RunOptions:
    """The options of ``sojourn run``, checked."""

    command: Sequence[str] = attrs.field(repr=False)
    environment: str | None
    workspace: str
    mode: str
    branch: str | None
    timeout_seconds: float | None
    grace_seconds: float | None
    provision: str | None
    provision_in_place: bool
    teardown: str | None
    declared_commands: bool
    env: Mapping[str, str] = attrs.field(repr=False)
    secrets: Mapping[str, str]
    run_id: str | None
    agent_id: str | None
    stdin: bool

    @property
    def transfer(self) -> Transfer:
        """How the tree gets there: a git worktree is made here, and then used in place."""
        return "copy" if self.mode == "copy" else "in_place"

    @property
    def overlay(self) -> Overlay:
        """The commands around the run that the options name."""
        return Overlay(provision=self.provision, teardown=self.teardown, provision_in_place=self.provision_in_place)

    def source(self, exclude: tuple[str, ...]) -> Workspace:
        """Return the tree, without what stays behind when it is copied."""
        strategy: Strategy = "git_worktree" if self.mode == "git_worktree" else "project_primary"
        return Workspace(local_path=self.workspace, strategy=strategy, branch=self.branch, exclude=exclude)

    def session(self, tenant: str) -> dict[str, Any]:
        """Return the arguments for `Orchestrator.session`, but those that a declaration has a say in."""
        variables: dict[str, str | Secret] = {**self.env, **{name: Secret(ref) for name, ref in self.secrets.items()}}
        return {
            "run": RunContext(tenant=tenant, run_id=self.run_id, agent_id=self.agent_id),
            "transfer": self.transfer,
            "variables": Variables(run=variables),
            "expires_at": self._expires_at(),
            "actor": operator() if self.agent_id is None else None,
        }

    def _expires_at(self) -> datetime | None:
        """A time limit that is longer than a lease's usual life makes the lease live longer."""
        limit = timedelta(seconds=self.timeout_seconds or 0) + timedelta(hours=1)
        return datetime.now(UTC) + limit if limit > DEFAULT_LIFETIME else None


class Run:
    """Runs one command and says what became of it.

    Args:
        state: the global options.
        options: what to run, and where.
        declared: what the repository declares.
    """

    def __init__(self, state: State, options: RunOptions, declared: Declared) -> None:
        self._state = state
        self._options = options
        self._declared = declared
        self._session: Session | None = None
        self._live = LiveCommand(shown=not state.json, quiet=state.quiet)
        self._progress = Progress(quiet=state.quiet, copied=options.mode == "copy")
        self._worktree = WorktreeNotes(options.workspace, quiet=state.quiet)

    async def run(self) -> int:
        """Run it all; return the exit status.

        Raises:
            SojournError: it could not be run, and that was not because of a signal.
        """
        interrupts = Interrupts(self._explain_wait, self._give_up)
        interrupts.install()
        try:
            await self._lease_and_execute()
        except asyncio.CancelledError:
            if interrupts.status is None:
                raise
        finally:
            self._progress.clear()
        await self._live.last_words()
        return await self._conclude(interrupts.status)

    async def _lease_and_execute(self) -> None:
        options = self._options
        self._progress.step("waiting for a place")
        async with self._state.orchestrator(self._progress) as orchestrator:
            with self._declared.naming_what_is_missing():
                arguments = await self._arguments(orchestrator)
                async with orchestrator.session(**arguments) as session:
                    self._session = session
                    self._say_what_is_pending(session)
                    if options.mode == "git_worktree":
                        await self._worktree.started(session)
                    await self._execute(session)
                    failure = self._live.failure()
                    if failure is not None:
                        session.fail(failure)

    async def _arguments(self, orchestrator: Orchestrator) -> dict[str, Any]:
        """Return the arguments of the session; what the declaration gets wrong is told before there is a lease."""
        options, declared = self._options, self._declared
        declared.prepare(orchestrator)
        arguments = options.session(self._state.tenant) | {
            "selection": declared.selection(options.environment),
            "workspace": options.source(declared.exclude),
        }
        defaults = declared.declaration.defaults
        if defaults.provision is None and defaults.teardown is None:
            return arguments | {"overlay": options.overlay}
        names = ("workspace", "transfer", "variables")
        place = await orchestrator.explain(
            arguments["selection"], overlay=options.overlay, **{name: arguments[name] for name in names}
        )
        commands = declared.commands(options.overlay, place, allowed=options.declared_commands)
        if commands.withheld is not None and options.mode != "in_place":
            note(f"a command of sojourn.toml is not run: {commands.withheld}", quiet=self._state.quiet)
        return arguments | {"overlay": commands.overlay(options.overlay)}

    def _say_what_is_pending(self, session: Session) -> None:
        change = self._declared.pending(session.acquisition.environment)
        if change is not None:
            warn(
                f"warning: environment {change.name!r} is not as it is declared ({', '.join(change.fields)}); "
                "`sojourn env apply` shows the difference"
            )

    async def _execute(self, session: Session) -> None:
        options = self._options
        self._progress.command_starts()
        try:
            await self._live.execute(
                session,
                options.command,
                stdin=options.stdin,
                timeout_seconds=options.timeout_seconds,
                grace_seconds=options.grace_seconds,
            )
        finally:
            self._progress.command_ended(at_line_start=self._live.at_line_start)

    # -- what is said about it ----------------------------------------------------------------------------------------

    async def _conclude(self, interrupted: int | None) -> int:
        session, result = self._session, self._live.result
        if session is not None and session.release_report is not None:
            for trouble in session.release_report.errors:
                warn(f"warning: {trouble.error}")
        if session is not None and self._options.mode == "git_worktree":
            await self._worktree.ended(session)
        if result is None or session is None:
            status = FAILED_STATUS if interrupted is None else interrupted
            error = CommandLineError("interrupted before the command was started", "interrupted")
            if self._state.json:
                from sojourn.cli.failures import document

                print_json(document(error))
            return status
        status = self._live.status(interrupted)
        self._live.diagnose(status)
        if self._state.json:
            print_json(self._document(session, result, status))
        return status

    def _document(self, session: Session, result: ExecuteResult, status: int) -> dict[str, Any]:
        report = session.release_report
        return {
            "exit_status": status,
            **documents.result(result),
            "lease": documents.lease(report.released[0] if report and report.released else session.lease),
            "environment": documents.environment(session.acquisition.environment),
            "resolution": documents.trace(session.acquisition.resolution.trace),
            "branch": self._worktree.branch,
            "warnings": [str(trouble.error) for trouble in report.errors] if report else [],
        }

    # -- signals ------------------------------------------------------------------------------------------------------

    def _explain_wait(self) -> None:
        where = "" if self._session is None else f" and giving lease {self._session.lease.id} back"
        note(f"ending the command{where}; once more to stop waiting for that", quiet=self._state.quiet)

    def _give_up(self) -> None:
        left = "what is left" if self._session is None else f"lease {self._session.lease.id} is left,"
        warn(f"stopped waiting; {left} `sojourn reap` will get it")
