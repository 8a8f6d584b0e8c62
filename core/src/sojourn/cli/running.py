"""One ``sojourn run``: a session, one command in it, its streams, and the exit status of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import attrs

from sojourn.cli import documents
from sojourn.cli.context import State, operator
from sojourn.cli.failures import CommandLineError
from sojourn.cli.interrupts import Interrupts
from sojourn.cli.output import note, print_json, warn
from sojourn.cli.stdio import Output, ReaderGone, Stdin
from sojourn.cli.types import duration_text
from sojourn.cli.worktree_notes import WorktreeNotes
from sojourn.models import ExecuteResult, Outcome, RunContext, Stream, Transfer
from sojourn.realization_records import Overlay, Workspace
from sojourn.secrets import Secret
from sojourn.variables import Variables

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sojourn.session import Command, Session
    from sojourn.streams import Chunk

__all__ = ["Run", "RunOptions"]

FAILED_STATUS = 125
TIMED_OUT_STATUS = 124
READER_GONE_STATUS = 141
LAST_WORDS_SECONDS = 2.0
DEFAULT_LIFETIME = timedelta(hours=24)
LIVE_LIMIT_BYTES = 2 * 1024 * 1024
"""How much of a stream that is shown live is kept beside: enough for what is still on its way when a command is stopped."""


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
    env: Mapping[str, str] = attrs.field(repr=False)
    secrets: Mapping[str, str]
    run_id: str | None
    agent_id: str | None
    stdin: bool

    @property
    def transfer(self) -> Transfer:
        """How the tree gets there: a git worktree is made here, and then used in place."""
        return "copy" if self.mode == "copy" else "in_place"

    def session(self, tenant: str) -> dict[str, Any]:
        """Return the arguments for `Orchestrator.session`."""
        worktree = self.mode == "git_worktree"
        variables: dict[str, str | Secret] = {**self.env, **{name: Secret(ref) for name, ref in self.secrets.items()}}
        return {
            "environment": self.environment,
            "workspace": Workspace(
                local_path=self.workspace,
                strategy="git_worktree" if worktree else "project_primary",
                branch=self.branch,
            ),
            "run": RunContext(tenant=tenant, run_id=self.run_id, agent_id=self.agent_id),
            "transfer": self.transfer,
            "overlay": Overlay(
                provision=self.provision, teardown=self.teardown, provision_in_place=self.provision_in_place
            ),
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
    """

    def __init__(self, state: State, options: RunOptions) -> None:
        self._state = state
        self._options = options
        self._session: Session | None = None
        self._result: ExecuteResult | None = None
        self._reader_gone = False
        self._output = Output()
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
        await self._last_words()
        return await self._conclude(interrupts.status)

    async def _lease_and_execute(self) -> None:
        options = self._options
        async with (
            self._state.orchestrator() as orchestrator,
            orchestrator.session(**options.session(self._state.tenant)) as session,
        ):
            self._session = session
            if options.mode == "git_worktree":
                await self._worktree.started(session)
            await self._execute(session)
            self._mark(session)

    async def _execute(self, session: Session) -> None:
        options = self._options
        stdin = Stdin() if options.stdin else None
        try:
            async with session.start(
                options.command,
                stdin=stdin,
                timeout_seconds=options.timeout_seconds,
                grace_seconds=options.grace_seconds,
                output_limit_bytes=None if self._state.json else LIVE_LIMIT_BYTES,
            ) as command:
                await self._follow(command)
        finally:
            if stdin is not None:
                stdin.close()

    async def _follow(self, command: Command) -> None:
        try:
            if not self._state.json:
                await self._show(command)
            self._result = await command.wait()
        except asyncio.CancelledError:
            self._result = await command.stop()
            raise
        except ReaderGone:
            self._reader_gone = True
            self._result = await command.stop()

    async def _show(self, command: Command) -> None:
        async with aclosing(cast("AsyncGenerator[Chunk]", command.output())) as chunks:
            async for chunk in chunks:
                await self._output.write(chunk.stream, chunk.data)

    def _mark(self, session: Session) -> None:
        """A command that did not exit with 0 makes a failed lease. The reason names no argument: those may be private."""
        assert self._result is not None  # noqa: S101 - _execute returned
        if self._reader_gone:
            session.fail("the reader of the command's output went away")
        elif not self._result.ok:
            session.fail(f"command {how_it_ended(self._result)}")

    async def _last_words(self) -> None:
        """Pass on what a stopped command still said; not for long, because its reader may be stuck."""
        if self._result is None or self._state.json or self._reader_gone:
            return
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._output.settle()
                result = self._result
                await self._rest("stdout", result.stdout, result.stdout_dropped_bytes)
                await self._rest("stderr", result.stderr, result.stderr_dropped_bytes)
        except (TimeoutError, ReaderGone, CommandLineError):
            pass

    async def _rest(self, stream: Stream, kept: bytes, dropped: int) -> None:
        missing = len(kept) + dropped - self._output.written[stream]
        if missing > 0:
            await self._output.write(stream, kept[-missing:])

    # -- what is said about it ----------------------------------------------------------------------------------------

    async def _conclude(self, interrupted: int | None) -> int:
        session, result = self._session, self._result
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
        status = self._status(result, interrupted)
        self._diagnose(result, status, interrupted)
        if self._state.json:
            print_json(self._document(session, result, status))
        return status

    def _status(self, result: ExecuteResult, interrupted: int | None) -> int:
        if interrupted is not None:
            return interrupted
        if self._reader_gone:
            return READER_GONE_STATUS
        if result.outcome is Outcome.TIMED_OUT:
            return TIMED_OUT_STATUS
        return FAILED_STATUS if result.exit_code is None else result.exit_code

    def _diagnose(self, result: ExecuteResult, status: int, interrupted: int | None) -> None:
        limit = self._options.timeout_seconds
        if result.outcome is Outcome.TIMED_OUT and limit is not None:
            note(f"the command was ended at its time limit of {duration_text(limit)}", quiet=self._state.quiet)
        elif result.outcome is Outcome.LOST:
            warn(f"the command was lost, nobody knows how it ended: {result.detail or 'no reason is known'}")
        elif status == FAILED_STATUS and result.outcome is Outcome.CANCELLED:
            warn("the command was ended because its lease was taken away; `sojourn activity` shows by whom")
        stopped = result.outcome in (Outcome.TIMED_OUT, Outcome.CANCELLED)
        if stopped and not result.kill_confirmed:
            warn("warning: not every process of the command is proven gone")

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


def how_it_ended(result: ExecuteResult) -> str:
    """Return how a command ended, in words that name nothing of it."""
    if result.outcome is Outcome.EXITED:
        return f"exited with {result.exit_code}"
    if result.outcome is Outcome.SIGNALED:
        return f"died of {result.signal or f'a signal (status {result.exit_code})'}"
    return {Outcome.TIMED_OUT: "timed out", Outcome.CANCELLED: "was cancelled"}.get(result.outcome, "was lost")
