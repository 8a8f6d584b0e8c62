"""One command in somebody's active lease: its streams, its exit status, and the lease left as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sojourn.cli import documents
from sojourn.cli.context import State, operator
from sojourn.cli.failures import CommandLineError, document
from sojourn.cli.interrupts import Interrupts
from sojourn.cli.lease_lookup import existing
from sojourn.cli.live import LiveCommand
from sojourn.cli.output import note, print_json, warn
from sojourn.records import Lease
from sojourn.secrets import Secret

__all__ = ["AttachedOptions", "AttachedRun"]


@attrs.frozen(kw_only=True)
class AttachedOptions:
    """The options of ``sojourn lease exec``, checked."""

    lease_id: str
    command: Sequence[str] = attrs.field(repr=False)
    timeout_seconds: float | None
    grace_seconds: float | None
    cwd: str | None
    env: Mapping[str, str] = attrs.field(repr=False)
    secrets: Mapping[str, str]
    stdin: bool


class AttachedRun:
    """Runs one command beside what the lease's own run does.

    Args:
        state: the global options.
        options: what to run, and in which lease.
    """

    def __init__(self, state: State, options: AttachedOptions) -> None:
        self._state = state
        self._options = options
        self._live = LiveCommand(shown=not state.json, quiet=state.quiet)
        self._lease: Lease | None = None

    async def run(self) -> int:
        """Run it; return the exit status.

        Raises:
            SojournError: it could not be run, and that was not because of a signal.
        """
        interrupts = Interrupts(self._explain_wait, self._give_up)
        interrupts.install()
        try:
            await self._attach_and_execute()
        except asyncio.CancelledError:
            if interrupts.status is None:
                raise
        await self._live.last_words()
        status = self._live.status(interrupts.status)
        self._live.diagnose(status)
        if self._state.json:
            print_json(self._document(status))
        return status

    async def _attach_and_execute(self) -> None:
        options = self._options
        async with self._state.orchestrator() as orchestrator:
            self._lease = await existing(self._state, orchestrator.store, options.lease_id)
            async with orchestrator.attach(options.lease_id, actor=operator()) as place:
                await self._live.execute(
                    place,
                    options.command,
                    stdin=options.stdin,
                    timeout_seconds=options.timeout_seconds,
                    grace_seconds=options.grace_seconds,
                    cwd=options.cwd,
                    env={**options.env, **{name: Secret(reference) for name, reference in options.secrets.items()}},
                )

    def _document(self, status: int) -> dict[str, Any]:
        if self._live.result is None or self._lease is None:
            return document(CommandLineError("interrupted before the command was started", "interrupted"))
        return {"exit_status": status, **documents.result(self._live.result), "lease": documents.lease(self._lease)}

    def _explain_wait(self) -> None:
        note("ending the command; once more to stop waiting for that", quiet=self._state.quiet)

    def _give_up(self) -> None:
        warn(f"stopped waiting; what is left of the command ends with lease {self._options.lease_id}")
