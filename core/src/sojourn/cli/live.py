"""One command in a lease with our own stdin, stdout and stderr, and the exit status that its end means."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import note, warn
from sojourn.cli.stdio import Output, ReaderGone, Stdin
from sojourn.cli.types import duration_text
from sojourn.models import ExecuteResult, Outcome, Stream

if TYPE_CHECKING:
    from sojourn.session import AttachedLease, Command, Session

__all__ = ["LiveCommand"]

FAILED_STATUS = 125
TIMED_OUT_STATUS = 124
READER_GONE_STATUS = 141
LAST_WORDS_SECONDS = 2.0
LIVE_LIMIT_BYTES = 2 * 1024 * 1024
"""How much of a stream that is shown live is kept beside: enough for what is still on its way when a command is stopped."""


class LiveCommand:
    """Runs one command and passes its streams on.

    Args:
        shown: pass the output on while the command runs; False keeps it for the document.
        quiet: say only what is wrong.

    Attributes:
        result: what became of it; None until it was started and has ended.
        reader_gone: whoever read our output has closed it.
        at_line_start: whether the last byte passed on ended a line.
    """

    def __init__(self, *, shown: bool, quiet: bool) -> None:
        self._shown = shown
        self._quiet = quiet
        self._output = Output()
        self._timeout_seconds: float | None = None
        self.result: ExecuteResult | None = None
        self.reader_gone = False
        self.at_line_start = True

    async def execute(
        self,
        place: Session | AttachedLease,
        argv: Sequence[str],
        *,
        stdin: bool,
        timeout_seconds: float | None,
        **options: Any,
    ) -> ExecuteResult:
        """Run it to its end; cancelling ends its whole process tree first.

        Args:
            place: where.
            argv: program and arguments.
            stdin: give it our stdin, else an empty one.
            timeout_seconds: None for no limit.
            options: further ones of `Session.start`.
        """
        self._timeout_seconds = timeout_seconds
        source = Stdin() if stdin else None
        limit = LIVE_LIMIT_BYTES if self._shown else None
        try:
            async with place.start(
                argv, stdin=source, timeout_seconds=timeout_seconds, output_limit_bytes=limit, **options
            ) as command:
                return await self._follow(command)
        finally:
            if source is not None:
                source.close()

    async def _follow(self, command: Command) -> ExecuteResult:
        try:
            if self._shown:
                await self._show(command)
            self.result = await command.wait()
        except asyncio.CancelledError:
            self.result = await command.stop()
            raise
        except ReaderGone:
            self.reader_gone = True
            self.result = await command.stop()
        return self.result

    async def _show(self, command: Command) -> None:
        async with aclosing(command.output()) as chunks:
            async for chunk in chunks:
                self.at_line_start = chunk.data.endswith(b"\n")
                await self._output.write(chunk.stream, chunk.data)

    async def last_words(self) -> None:
        """Pass on what a stopped command still said; not for long, because its reader may be stuck."""
        if self.result is None or not self._shown or self.reader_gone:
            return
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._output.settle()
                result = self.result
                await self._rest("stdout", result.stdout, result.stdout_dropped_bytes)
                await self._rest("stderr", result.stderr, result.stderr_dropped_bytes)
        except (TimeoutError, ReaderGone, CommandLineError):
            pass

    async def _rest(self, stream: Stream, kept: bytes, dropped: int) -> None:
        missing = len(kept) + dropped - self._output.written[stream]
        if missing > 0:
            await self._output.write(stream, kept[-missing:])

    # -- what it means ------------------------------------------------------------------------------------------------

    def status(self, interrupted: int | None) -> int:
        """Return the exit status of it all.

        Args:
            interrupted: what a signal to us means; None when there was none.
        """
        if interrupted is not None:
            return interrupted
        if self.reader_gone:
            return READER_GONE_STATUS
        if self.result is None:
            return FAILED_STATUS
        if self.result.outcome is Outcome.TIMED_OUT:
            return TIMED_OUT_STATUS
        return FAILED_STATUS if self.result.exit_code is None else self.result.exit_code

    def failure(self) -> str | None:
        """Say why the command was no success; None when it was. Names no argument: those may be private."""
        if self.reader_gone:
            return "the reader of the command's output went away"
        if self.result is None or self.result.ok:
            return None
        return f"command {_how_it_ended(self.result)}"

    def diagnose(self, status: int) -> None:
        """Say on stderr what the exit status alone does not."""
        result = self.result
        if result is None:
            return
        if result.outcome is Outcome.TIMED_OUT and self._timeout_seconds is not None:
            limit = duration_text(self._timeout_seconds)
            note(f"the command was ended at its time limit of {limit}", quiet=self._quiet)
        elif result.outcome is Outcome.LOST:
            warn(f"the command was lost, nobody knows how it ended: {result.detail or 'no reason is known'}")
        elif status == FAILED_STATUS and result.outcome is Outcome.CANCELLED:
            warn("the command was ended because its lease was taken away; `sojourn activity` shows by whom")
        stopped = result.outcome in (Outcome.TIMED_OUT, Outcome.CANCELLED)
        if stopped and not result.kill_confirmed:
            warn("warning: not every process of the command is proven gone")


def _how_it_ended(result: ExecuteResult) -> str:
    if result.outcome is Outcome.EXITED:
        return f"exited with {result.exit_code}"
    if result.outcome is Outcome.SIGNALED:
        return f"died of {result.signal or f'a signal (status {result.exit_code})'}"
    return {Outcome.TIMED_OUT: "timed out", Outcome.CANCELLED: "was cancelled"}.get(result.outcome, "was lost")
