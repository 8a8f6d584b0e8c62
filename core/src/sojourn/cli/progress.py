"""One line on a terminal's stderr that says which step of a run takes its time; gone before anything else is written."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from sojourn.cli import output
from sojourn.hooks import hookimpl
from sojourn.records import Operation

__all__ = ["Progress"]

PATIENCE_SECONDS = 0.5
"""A step that is over by then is not shown: a line that only flickers tells nothing."""
TICK_SECONDS = 0.2
_ERASE = "\r\x1b[2K"


class Progress:
    """Shows one step at a time; given to the orchestrator as a plugin, it learns of the steps from the driver calls.

    Args:
        quiet: show nothing.
        copied: the workspace is copied, so that is what is done after its root was made.
    """

    def __init__(self, *, quiet: bool, copied: bool = False) -> None:
        self._shown = not quiet and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._copied = copied
        self._phase: Literal["before", "command", "after"] = "before"
        self._text = ""
        self._since = 0.0
        self._visible = False
        self._timer: asyncio.TimerHandle | None = None

    # -- the line -----------------------------------------------------------------------------------------------------

    def step(self, text: str) -> None:
        """Begin a step: the line shows it once it takes its time."""
        if not self._shown or self._phase == "command":
            return
        self._erase()
        self._text, self._since = text, time.monotonic()
        output.before_message = self._erase
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._tick)

    def command_starts(self) -> None:
        """The terminal is the command's from now on."""
        self.clear()
        self._phase = "command"

    def command_ended(self, *, at_line_start: bool) -> None:
        """The command is over. When it ended in the middle of a line that line stays, and nothing more is shown."""
        self._phase = "after"
        self._shown = self._shown and at_line_start
        self.step("giving the place back")

    def clear(self) -> None:
        """Take the line away, and show nothing until the next step."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._erase()
        output.before_message = None

    def _tick(self) -> None:
        elapsed_seconds = time.monotonic() - self._since
        if elapsed_seconds >= PATIENCE_SECONDS:
            columns = shutil.get_terminal_size().columns
            # The last column stays free: a full line makes some terminals scroll.
            elapsed = f", {int(elapsed_seconds)} s" if elapsed_seconds >= 1 else ""
            text = output.clean(f"sojourn: {self._text}{elapsed}")[: columns - 1]
            self._visible = True
            self._write(f"{_ERASE}{text}")
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick) if self._shown else None

    def _erase(self) -> None:
        if self._visible:
            self._visible = False
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            self._shown = False

    # -- the steps ----------------------------------------------------------------------------------------------------

    @hookimpl
    async def around(self, operation: Operation, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Learn which step it is; changes nothing of it."""
        text = self._described(operation)
        if text is not None:
            self.step(text)
        answer = await call_next()
        if operation.name == "realize" and self._copied:
            self.step("copying the workspace")
        return answer

    def _described(self, operation: Operation) -> str | None:
        if operation.name == "execute":
            return "provisioning" if self._phase == "before" else "running the teardown command"
        return {
            "acquire": f"acquiring a place (driver {operation.driver})",
            "resume": f"taking a kept place up again (driver {operation.driver})",
            "realize": "preparing the workspace",
            "release": "giving the place back",
        }.get(operation.name)
