"""Ctrl-C and its relatives: the first one ends the run in good order, the second one stops waiting for that."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

__all__ = ["Interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 1.0


class Interrupts:
    """Turns signals into one cancellation of the task that made it; belongs to the running loop.

    Args:
        explain: called a second after the first signal, when ending takes its time.
        give_up: called on the second signal; then the process ends at once.
    """

    def __init__(self, explain: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._explain = explain
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.signal: signal.Signals | None = None

    def install(self) -> None:
        """Handle the signals from now on, but for those that our parent told us to ignore (``nohup``)."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._on_signal, number)

    @property
    def status(self) -> int | None:
        """The exit status that the signal means; None when there was none."""
        return None if self.signal is None else 128 + self.signal

    def _on_signal(self, number: signal.Signals) -> None:
        if self.signal is None:
            self.signal = number
            self._loop.call_later(PATIENCE_SECONDS, self._explain)
            if self._task is not None:
                self._task.cancel()
            return
        self._give_up()
        # No clean-up whatever: that is what is being waited for.
        os._exit(128 + self.signal)
