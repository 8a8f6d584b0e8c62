"""The monitor of one command: starts it, is the subreaper of its whole tree, ends that tree and proves it gone.

Runs in a fork of the supervisor, without an exec. Every descendant of the command, setsid'd or double-forked, is re-parented
to this process, so "no children left" (ECHILD) is the proof that the tree is gone.

Reports to the orchestrator, each one marshalled tuple: ``("failed", step, errno)`` nothing ran; ``("exited", wait status,
tree gone)``; ``("gone",)`` the rest of the tree ended later; ``("ended", reason, tree gone)`` after a stop.
Requests from it: ``("stop", reason, grace seconds)``; ``("detach",)`` with the read ends of the output, to drain.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import time
from _socket import MSG_CMSG_CLOEXEC, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET, socket
from sys import byteorder

from sojourn_local.commands import StartError, start_command
from sojourn_local.kernel import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, wake_pipe
from sojourn_local.proctable import descendants, process_table, send_signal

TYPE_CHECKING = False  # instead of importing typing, which the supervisor would wait for
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ENDING_STEP", "PROOF_SECONDS", "receive", "run_monitor", "send_report"]

PROOF_SECONDS = 1.5
ENDING_STEP = "ending"
"""The step at which a command is refused because the supervisor is ending; another one can take it."""
_ROUND_SECONDS = 0.01
_SLOW_ROUND_SECONDS = 0.25
_DRAIN_BYTES = 1 << 16
_IDLE_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 3600.0


def send_report(report: socket, message: tuple[Any, ...]) -> None:
    """Tell the orchestrator, if it is still there."""
    try:
        report.send(marshal.dumps(message), MSG_DONTWAIT)
    except OSError:
        # It is gone, or has hung up; the closing of the socket tells us so.
        return


def receive(source: socket) -> tuple[bytes, list[int]]:
    """Return the next message and the descriptors that came with it; an empty message when the other side hung up.

    Raises:
        BlockingIOError: there is none now.
    """
    try:
        message, ancillary, _, _ = source.recvmsg(512, 128, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
    except ConnectionResetError:
        return b"", []
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors.extend(memoryview(data[: len(data) & ~3]).cast("i"))
    return message, descriptors


def run_monitor(
    supervisor_pid: int, work: socket, words: socket, spares: memoryview, release_grace_seconds: float
) -> None:
    """Run commands, one at a time, and return when there are no more; no process of them is left then.

    Args:
        supervisor_pid: our parent; when it is another one, the supervisor has died.
        work: where commands come from; the kernel gives each to one of the monitors that wait.
        words: how the supervisor learns whether we have a command.
        spares: one byte shared with the supervisor: how many monitors wait.
        release_grace_seconds: between TERM and KILL when the orchestrator is gone or the lease is released.
    """
    wake_fd = wake_pipe()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGCHLD))
    while descriptors := _wait_for_command(supervisor_pid, work, wake_fd, spares):
        request_fd, report_fd, *streams = descriptors
        monitor = Monitor(supervisor_pid, socket(fileno=report_fd), wake_fd, release_grace_seconds)
        monitor.start(_read_request(request_fd), streams)
        _tell_supervisor(words, b"busy", [(SOL_SOCKET, SCM_RIGHTS, report_fd.to_bytes(4, byteorder))])
        for descriptor in (request_fd, *streams):
            os.close(descriptor)
        monitor.watch()
        monitor.close()
        if monitor.dismissed:
            return
        _tell_supervisor(words, b"free", [])


def _tell_supervisor(words: socket, word: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
    try:
        words.sendmsg([b"%s %d" % (word, os.getpid())], ancillary, MSG_DONTWAIT)
    except OSError:
        # It has died; the signal of that is on its way, and the tree is what matters now.
        return


def _wait_for_command(supervisor_pid: int, work: socket, wake_fd: int, spares: memoryview) -> list[int]:
    """Return a command's descriptors; none when there will be no more commands, or others are waiting for them."""
    poll = select.poll()
    poll.register(work.fileno(), select.POLLIN)
    poll.register(wake_fd, select.POLLIN)
    # The parent is looked at after the death signal was arranged: one of the two notices.
    while os.getppid() == supervisor_pid:
        ready = dict(poll.poll(_IDLE_SECONDS * 1000))
        if wake_fd in ready and signal.SIGTERM in os.read(wake_fd, 512):
            return []
        if not ready and spares[0] > 1:
            return []
        if work.fileno() not in ready:
            continue
        try:
            return receive(work)[1]
        except BlockingIOError:
            # Another monitor was faster.
            continue
    return []


def _read_request(request_fd: int) -> dict[str, Any]:
    data = bytearray(os.fstat(request_fd).st_size)
    os.preadv(request_fd, [data], 0)
    request: dict[str, Any] = marshal.loads(data)  # noqa: S302 - written by our own orchestrator into a private file
    return request


class Monitor:
    """What is known of one command, and what has to be done next."""

    def __init__(self, supervisor_pid: int, report: socket, wake_fd: int, release_grace_seconds: float) -> None:
        self.supervisor_pid = supervisor_pid
        self.report = report
        self.wake_fd = wake_fd
        self.release_grace_seconds = release_grace_seconds
        self.main_pid = 0
        self.limit_at: float | None = None
        self.limit_grace_seconds = 0.0
        self.tree_gone = False
        self.dismissed = False
        self.reason: str | None = None
        self.kill_at = 0.0
        self.give_up_at = 0.0
        self.end_told = False
        self.attached = True
        self.poll = select.poll()
        self.drains: set[int] = set()
        self.poll.register(wake_fd, select.POLLIN)
        self.poll.register(report.fileno(), select.POLLIN)

    # -- start --------------------------------------------------------------------------------------------------------

    def start(self, request: dict[str, Any], streams: list[int]) -> None:
        """Start the command; report it if that fails."""
        self.limit_grace_seconds = request["grace_seconds"]
        if request["timeout_seconds"] is not None:
            self.limit_at = time.monotonic() + request["timeout_seconds"]
        try:
            self.main_pid = start_command(request, streams)
        except StartError as error:
            send_report(self.report, ("failed", error.step, error.number))

    # -- the loop -----------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Serve until the tree is gone."""
        self._reap()
        while not self.tree_gone:
            # In parts, as the kernel counts milliseconds in an int; an early look does no harm.
            timeout_seconds = min(self._advance(), _LONGEST_WAIT_SECONDS)
            ready = dict(self.poll.poll(int(timeout_seconds * 1000) + 1))
            signals = os.read(self.wake_fd, 512) if self.wake_fd in ready else b""
            # Before any request to stop: what ended by itself is not called stopped.
            self._reap()
            self._dispatch(ready, signals)
        if self.reason is None:
            send_report(self.report, ("gone",))
        else:
            self._tell_end(gone=True)

    def _dispatch(self, ready: dict[int, int], signals: bytes) -> None:
        if signal.SIGTERM in signals:
            self.dismissed = True
            lost = os.getppid() != self.supervisor_pid
            self._end("supervisor_lost" if lost else "released", self.release_grace_seconds)
        if self.attached and self.report.fileno() in ready:
            self._on_request()
        for descriptor in self.drains & ready.keys():
            self._drain(descriptor)

    def _reap(self) -> None:
        status = None
        while not self.tree_gone:
            try:
                pid, its_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.tree_gone = True
                break
            if pid == 0:
                break
            if pid == self.main_pid:
                status = its_status
        if status is not None:
            self._on_exit(status)

    def _on_exit(self, status: int) -> None:
        self.limit_at = None
        if self.reason is None:
            send_report(self.report, ("exited", status, self.tree_gone))

    def close(self) -> None:
        """Hang up; every process of the command is gone."""
        self.report.close()
        for descriptor in self.drains:
            os.close(descriptor)

    # -- what the orchestrator says -------------------------------------------------------------------------------------

    def _on_request(self) -> None:
        try:
            message, descriptors = receive(self.report)
        except BlockingIOError:
            return
        request: tuple[Any, ...] = marshal.loads(message) if message else ("hung_up",)  # noqa: S302 - from our own orchestrator
        if request[0] == "stop":
            self._end(request[1], request[2])
            return
        self.attached = False
        self.poll.unregister(self.report.fileno())
        if request[0] == "hung_up":
            self._end("orchestrator_lost", self.release_grace_seconds)
        # Late output is read and dropped, so that a background child does not die of a closed pipe.
        for descriptor in descriptors:
            self.drains.add(descriptor)
            self.poll.register(descriptor, select.POLLIN)

    def _drain(self, descriptor: int) -> None:
        try:
            if os.read(descriptor, _DRAIN_BYTES):
                return
        except BlockingIOError:
            return
        self.drains.discard(descriptor)
        self.poll.unregister(descriptor)
        os.close(descriptor)

    # -- the end of the tree --------------------------------------------------------------------------------------------

    def _end(self, reason: str, grace_seconds: float) -> None:
        """Begin to end the tree; a second call can only make it quicker."""
        now = time.monotonic()
        kill_at = now + max(0.0, grace_seconds)
        if self.reason is not None:
            self.kill_at = min(self.kill_at, kill_at)
            return
        self.reason = reason
        self.kill_at = kill_at
        self.give_up_at = kill_at + PROOF_SECONDS
        if grace_seconds > 0:
            self._terminate_all()

    def _tell_end(self, *, gone: bool) -> None:
        if not self.end_told:
            self.end_told = True
            send_report(self.report, ("ended", self.reason, gone))

    def _advance(self) -> float:
        """Do what is due now; give the seconds until something is due again."""
        now = time.monotonic()
        if self.reason is None:
            if self.limit_at is None or now < self.limit_at:
                return _LONGEST_WAIT_SECONDS if self.limit_at is None else self.limit_at - now
            self._end("timeout", self.limit_grace_seconds)
        if now < self.kill_at:
            return self.kill_at - now
        for process in descendants(process_table(), os.getpid()):
            if not process.ended:
                send_signal(process, signal.SIGKILL)
        if now < self.give_up_at:
            return _ROUND_SECONDS
        self._tell_end(gone=False)
        return _SLOW_ROUND_SECONDS

    def _terminate_all(self) -> None:
        """Ask every process of the tree to end; twice, for what was forked while the first scan ran."""
        asked: set[tuple[int, int]] = set()
        for _ in range(2):
            for process in descendants(process_table(), os.getpid()):
                identity = (process.pid, process.start_ticks)
                if process.ended or identity in asked:
                    continue
                asked.add(identity)
                send_signal(process, signal.SIGTERM)
                # A stopped process gets to its TERM only when it is continued.
                send_signal(process, signal.SIGCONT)
