"""The asyncio side of one command: its pipes, its report socket, its stop, and the outcome that is made of them.

The monitor (`sojourn_local.monitor`) runs the command and enforces its limits; this side moves bytes and listens.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import signal
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

from sojourn import CommandIO, CommandOutcome, Outcome, StopReason
from sojourn_local.failures import SupervisorEnded, start_failure, translated
from sojourn_local.monitor import ENDING_STEP
from sojourn_local.streams import InputFeeder, OutputPump

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Command", "CommandSpec"]

LINGER_SECONDS = 0.1
"""How long a command's output is read after its end, while descendants that may write its tail are left."""
TAIL_SECONDS = 0.25
"""How long a slow reader may take for what is left after a stop."""
PROOF_SECONDS = 1.65
"""How long after the grace the monitor's word is waited for; the contract allows two seconds."""

_OUTCOMES = {
    "timeout": (Outcome.TIMED_OUT, None),
    "cancelled": (Outcome.CANCELLED, None),
    "lease_lost": (Outcome.CANCELLED, "the lease was lost"),
    "released": (Outcome.CANCELLED, "the lease was released while the command ran"),
    "supervisor_lost": (Outcome.LOST, "the supervisor of the lease was killed"),
    "monitor_lost": (Outcome.LOST, "the monitor of the command was killed"),
    "silent": (Outcome.LOST, "the monitor of the command did not answer in time"),
    "hung_up": (Outcome.LOST, "the monitor and the supervisor of the command are gone"),
}


@attrs.frozen(kw_only=True)
class CommandSpec:
    """What the monitor has to run, as bytes, so that no encoding is chosen on the way."""

    argv: list[bytes]
    cwd: bytes
    env: dict[bytes, bytes] = attrs.field(repr=False)
    identity: tuple[int, int, list[int]] | None
    timeout_seconds: float | None
    grace_seconds: float

    def to_file(self) -> int:
        """Write the request into a new anonymous file and return its descriptor."""
        descriptor = os.memfd_create("sojourn-request", os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file:
            marshal.dump(attrs.asdict(self, recurse=False), file)
        return descriptor


class Command:
    """One command from its submission to its outcome; used once, within one event loop."""

    def __init__(self, spec: CommandSpec, io: CommandIO) -> None:
        self._spec = spec
        self._io = io
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[tuple[Any, ...]] = self._loop.create_future()
        self._tree_gone: asyncio.Future[bool] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._error: BaseException | None = None
        self.ran = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._pumping: list[asyncio.Task[Any]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._pumps: list[OutputPump] = []
        self._feeder: InputFeeder | None = None
        self._report: socket.socket | None = None

    async def run(self, submit: Callable[[list[int]], None]) -> CommandOutcome:
        """Run the command.

        Args:
            submit: hands descriptors to the supervisor: request, report socket, stdout, stderr, and stdin if there is one.

        Returns:
            How it ended; never raises for what the command did.

        Raises:
            InvalidArgument: it could not be started as asked, or the caller's stdin iterator raised.
        """
        if self._io.stop.is_set():
            return _never_started(self._io.stop.reason)
        started_at, started = datetime.now(UTC), time.monotonic()
        try:
            with translated("starting a command"):
                self._open(submit)
            try:
                complete = await self._until_end()
            except BaseException:
                await self._abandon()
                raise
        finally:
            await self._close()
        if self._error is not None:
            raise self._error
        outcome = await self._outcome(complete)
        duration = timedelta(seconds=time.monotonic() - started)
        return attrs.evolve(outcome, started_at=started_at, duration=duration)

    # -- set-up -------------------------------------------------------------------------------------------------------

    def _open(self, submit: Callable[[list[int]], None]) -> None:
        theirs: list[int] = []
        source = self._io.stdin
        try:
            theirs.append(self._spec.to_file())
            self._report, their_report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.append(their_report.detach())
            self._report.setblocking(False)
            for stream in ("stdout", "stderr"):
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                theirs.append(write_fd)
                self._pumps.append(OutputPump(self._io, stream, read_fd))
            if source is not None:
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                theirs.append(read_fd)
                self._feeder = InputFeeder(source, write_fd)
            submit(theirs)
            self.ran = True
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._loop.add_reader(self._report.fileno(), self._on_report)
        self._pumping = [self._spawn(pump.run(), self._on_job_done) for pump in self._pumps]
        if self._feeder is not None:
            self._spawn(self._feeder.run(), self._on_job_done)
        self._spawn(self._io.stop.wait(), self._on_stop_signal)
        if self._spec.timeout_seconds is not None:
            self._give_up_after(self._spec.timeout_seconds + self._spec.grace_seconds + PROOF_SECONDS)

    def _spawn(
        self, job: Coroutine[Any, Any, Any], when_done: Callable[[asyncio.Task[Any]], None]
    ) -> asyncio.Task[Any]:
        task = self._loop.create_task(job)
        task.add_done_callback(when_done)
        self._tasks.append(task)
        return task

    def _give_up_after(self, seconds: float) -> None:
        self._timers.append(self._loop.call_later(seconds, self._lost, "silent"))

    # -- what the other side says -------------------------------------------------------------------------------------

    def _on_report(self) -> None:
        assert self._report is not None  # noqa: S101 - set before this callback was registered
        while True:
            try:
                message = self._report.recv(512)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            if not message:
                self._loop.remove_reader(self._report.fileno())
                self._lost("hung_up")
                return
            self._note(marshal.loads(message))  # noqa: S302 - from our own monitor or supervisor

    def _note(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("exited", _, gone):
                self._settle(message, True if gone else None)
            case ("failed", *_):
                self._settle(message, True)
            case ("ended", _, gone):
                self._settle(message, gone)
            case ("orphaned", gone):
                self._settle(("ended", "monitor_lost", gone), gone)
            case ("gone",):
                self._settle(None, True)

    def _settle(self, first: tuple[Any, ...] | None, tree_gone: bool | None) -> None:
        if first is not None and not self._first.done():
            self._first.set_result(first)
        if tree_gone is not None and not self._tree_gone.done():
            self._tree_gone.set_result(tree_gone)

    def _lost(self, why: str) -> None:
        self._settle(("ended", why, False), False)

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _on_stop_signal(self, task: asyncio.Task[StopReason]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._error = self._error or error
            self._stop("cancelled" if error is not None else task.result().value)

    def _on_job_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._error = self._error or error
            self._stop("cancelled")

    def _stop(self, reason: str) -> None:
        """Ask the monitor to end the tree; it answers, or is given up."""
        if self._stopped.done():
            return
        self._stopped.set_result(None)
        if self._report is not None and not self._tree_gone.done():
            try:
                self._report.send(marshal.dumps(("stop", reason, self._spec.grace_seconds)))
            except OSError:
                # Nobody listens: the report callback sees the same and says lost.
                pass
            self._give_up_after(self._spec.grace_seconds + PROOF_SECONDS)

    async def _abandon(self) -> None:
        """The caller is gone: end the tree and see it gone, whatever else is cancelled meanwhile."""
        self._stop("cancelled")
        while not self._tree_gone.done():
            try:
                await asyncio.wait({self._tree_gone})
            except asyncio.CancelledError:
                continue

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _until_end(self) -> bool:
        """Wait for the end of the command and of its output; say whether all of the output was passed on."""
        await asyncio.wait({self._first})
        if self._first.result()[0] == "exited" and not self._tree_gone.done():
            # Descendants are left: the tail of the output may still be on its way through one of them.
            rest = asyncio.gather(*self._pumping, return_exceptions=True)
            signs: set[asyncio.Future[Any]] = {self._tree_gone, self._stopped, rest}
            await asyncio.wait(signs, timeout=LINGER_SECONDS, return_when="FIRST_COMPLETED")
        if self._stopped.done():
            await asyncio.wait({self._tree_gone})
        return await self._finish_output()

    async def _finish_output(self) -> bool:
        for pump in self._pumps:
            pump.finish()
        pending = {task for task in self._pumping if not task.done()}
        while pending and not self._stopped.done() and self._first.result()[0] == "exited":
            await asyncio.wait({self._stopped, *pending}, return_when="FIRST_COMPLETED")
            pending = {task for task in pending if not task.done()}
        if self._stopped.done():
            await asyncio.wait({self._tree_gone})
        if pending:
            _, pending = await asyncio.wait(pending, timeout=TAIL_SECONDS)
        return not pending

    async def _outcome(self, complete: bool) -> CommandOutcome:
        kind, *facts = self._first.result()
        confirmed = self._stopped.done() and self._tree_gone.done() and self._tree_gone.result()
        if kind == "failed":
            self.ran = False
            return await self._start_failed(*facts)
        if kind == "exited":
            return _exit_outcome(facts[0], complete, confirmed)
        outcome, detail = _OUTCOMES[facts[0]]
        return CommandOutcome(outcome=outcome, output_complete=complete, kill_confirmed=facts[1], detail=detail)

    async def _start_failed(self, step: str, number: int) -> CommandOutcome:
        if step == ENDING_STEP:
            raise SupervisorEnded("the supervisor of the lease was about to end; nothing ran")
        exit_code, line = start_failure(step, number, self._spec.argv[0], self._spec.cwd)
        await self._io.write("stderr", line)
        return CommandOutcome(outcome=Outcome.EXITED, exit_code=exit_code)

    # -- clean-up -----------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._report is not None:
            self._loop.remove_reader(self._report.fileno())
            if not self._tree_gone.done():
                self._detach(self._report)
            self._report.close()
        for task in self._tasks:
            task.remove_done_callback(self._on_job_done)
            task.remove_done_callback(self._on_stop_signal)
            task.add_done_callback(_forget)
            task.cancel()
        for pump in self._pumps:
            pump.close()
        if self._feeder is not None:
            self._feeder.close()
        busy = [task for task in self._tasks[:-1] if not task.done()]
        if busy:
            # The caller's own iterator or write is unwinding; it should not be found running after we returned.
            await asyncio.wait(busy, timeout=TAIL_SECONDS)

    def _detach(self, report: socket.socket) -> None:
        """Leave the descendants to the monitor; it reads on for them, so that they do not die of a closed pipe."""
        outputs = [pump.descriptor for pump in self._pumps if not pump.at_end]
        try:
            socket.send_fds(report, [marshal.dumps(("detach",))], outputs)
        except OSError:
            # The monitor is gone, and the tree with it.
            return


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _never_started(reason: StopReason | None) -> CommandOutcome:
    outcome = Outcome.TIMED_OUT if reason is StopReason.TIMEOUT else Outcome.CANCELLED
    return CommandOutcome(outcome=outcome, kill_confirmed=True, detail="stopped before it was started")


def _exit_outcome(status: int, complete: bool, confirmed: bool) -> CommandOutcome:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return CommandOutcome(
            outcome=Outcome.SIGNALED,
            exit_code=128 + number,
            signal=_signal_name(number),
            output_complete=complete,
            kill_confirmed=confirmed,
        )
    code = os.WEXITSTATUS(status)
    return CommandOutcome(outcome=Outcome.EXITED, exit_code=code, output_complete=complete, kill_confirmed=confirmed)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
