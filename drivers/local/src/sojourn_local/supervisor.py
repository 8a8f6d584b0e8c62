"""The supervisor of one lease: keeps a monitor ready for the next command, ends everything when its orchestrator is gone.

A program of its own, started by `launch.py` with the control socket as descriptor 0 and the locked state file as descriptor 3.
Standard library only, and little of it, so that it starts fast and forks cheaply.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from _socket import AF_UNIX, SHUT_RD, SOCK_SEQPACKET, socket, socketpair
from mmap import mmap

from sojourn_local.kernel import PR_SET_CHILD_SUBREAPER, default_signals, prctl, wake_pipe
from sojourn_local.monitor import ENDING_STEP, receive, run_monitor, send_report
from sojourn_local.proctable import boot_id, descendants, process_table, read_process, send_signal

__all__ = ["LOCK_FD", "main"]

CONTROL_FD = 0
LOCK_FD = 3
_ROUND_SECONDS = 0.01
_SLOW_ROUND_SECONDS = 0.25
_SPARE_SECONDS = 0.005
_PROOF_SECONDS = 1.5


class Supervisor:
    """The loop of the process; see the module."""

    def __init__(self, control: socket, orchestrator_pid: int, grace_seconds: float) -> None:
        self.pid = os.getpid()
        self.control = control
        self.grace_seconds = grace_seconds
        self.words, self.words_of_monitors = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self.monitors: dict[int, socket | None] = {}
        self.spares: set[int] = set()
        self.spares_shared = memoryview(mmap(-1, 1))
        self.bereaved: list[socket] = []
        self.orphans_since: float | None = None
        self.closing = False
        self.childless = True
        self.wake_fd = wake_pipe()
        self.orchestrator_fd = self._watch(orchestrator_pid)
        self.poll = select.poll()
        for descriptor in (self.wake_fd, self.words.fileno(), self.orchestrator_fd):
            if descriptor >= 0:
                self.poll.register(descriptor, select.POLLIN)
        self.poll.register(control.fileno(), 0)

    def _watch(self, orchestrator_pid: int) -> int:
        """Open a descriptor that becomes readable when the orchestrator ends; copies of its socket may outlive it in forks."""
        try:
            descriptor = os.pidfd_open(orchestrator_pid)
        except ProcessLookupError:
            os._exit(0)
        except OSError:
            return -1
        if os.getppid() != orchestrator_pid:
            os._exit(0)
        return descriptor

    def run(self) -> None:
        """Serve until the orchestrator is gone or asks for the end, and no process is left."""
        while not (self.closing and self.childless):
            timeout_seconds = self._orphan_round()
            if not self.spares and not self.closing:
                timeout_seconds = min(timeout_seconds or _SPARE_SECONDS, _SPARE_SECONDS)
            ready = dict(self.poll.poll(None if timeout_seconds is None else timeout_seconds * 1000))
            self._note_words()
            self._reap()
            if self._is_over(ready):
                self._close()
            elif not self.spares and not self.closing and (not ready or self.control.fileno() in ready):
                self._fork_spare()

    def _is_over(self, ready: dict[int, int]) -> bool:
        if self.wake_fd in ready and signal.SIGTERM in os.read(self.wake_fd, 512):
            return True
        hung_up = ready.get(self.control.fileno(), 0) & select.POLLHUP
        return self.orchestrator_fd in ready or bool(hung_up)

    def _close(self) -> None:
        """Take no more commands and tell every monitor to end its tree."""
        if not self.closing:
            self.closing = True
            for descriptor in (self.control.fileno(), self.orchestrator_fd):
                if descriptor >= 0:
                    self.poll.unregister(descriptor)
            # Busy monitors hold copies, so closing alone would leave a queue that nobody reads.
            self.control.shutdown(SHUT_RD)
            while self._refuse(ENDING_STEP, 0):
                pass
            self.control.close()
        # Again at every request: a monitor that was stopped meanwhile is continued.
        for pid in self.monitors:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)

    def _fork_spare(self) -> None:
        """Fork a monitor: for the command that came while all are busy, or ahead of time for the next one."""
        # A signal between fork and the monitor's own handlers would be lost to it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))
        try:
            pid = os.fork()
            if pid == 0:
                self._become_monitor()
        except OSError as error:
            self._refuse("fork", error.errno or 0)
        else:
            self.monitors[pid] = None
            self.spares.add(pid)
            self._count_spares()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGCHLD))

    def _become_monitor(self) -> None:
        try:
            for report in (*self.monitors.values(), *self.bereaved):
                if report is not None:
                    report.close()
            self.words.close()
            for descriptor in (self.wake_fd, self.orchestrator_fd):
                if descriptor >= 0:
                    os.close(descriptor)
            run_monitor(self.pid, self.control, self.words_of_monitors, self.spares_shared, self.grace_seconds)
            os._exit(0)
        finally:
            # Never back into the supervisor's loop, whatever happened; not 0, so that what is left is ended.
            os._exit(1)

    def _refuse(self, step: str, number: int) -> bool:
        """Tell a command that waits, if there is one, that it cannot run; say whether there was one."""
        try:
            message, descriptors = receive(self.control)
        except BlockingIOError:
            return False
        for index, descriptor in enumerate(descriptors):
            if index == 1:
                report = socket(fileno=descriptor)
                send_report(report, ("failed", step, number))
                report.close()
            else:
                os.close(descriptor)
        return bool(message)

    def _note_words(self) -> None:
        """Learn which monitors are busy; keep a copy of their report sockets, to speak for one that is killed."""
        while True:
            try:
                message, descriptors = receive(self.words)
            except BlockingIOError:
                break
            word, number = message.split()
            pid = int(number)
            if word == b"busy":
                self.spares.discard(pid)
                self.monitors[pid] = socket(fileno=descriptors[0])
            else:
                self.spares.add(pid)
                self._hang_up(pid)
        self._count_spares()

    def _hang_up(self, pid: int) -> None:
        report = self.monitors[pid]
        self.monitors[pid] = None
        if report is not None:
            report.close()

    def _count_spares(self) -> None:
        self.spares_shared[0] = min(len(self.spares), 255)
        if not self.closing:
            # While a monitor waits the commands are for it; else one that comes has to wake us.
            self.poll.modify(self.control.fileno(), 0 if self.spares else select.POLLIN)

    def _reap(self) -> None:
        self.childless = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                break
            if pid == 0:
                break
            # It wrote before it died, so its word is there by now.
            self._note_words()
            self.spares.discard(pid)
            report = self.monitors.pop(pid, None)
            if status != 0 and self.orphans_since is None:
                self.orphans_since = time.monotonic()
            if report is not None and status == 0:
                report.close()
            elif report is not None:
                self.bereaved.append(report)

    def _orphan_round(self) -> float | None:
        """End what killed monitors left behind; give the seconds to the next round, None when there is nothing to do."""
        if self.orphans_since is None:
            return None
        now = time.monotonic()
        orphans = descendants(process_table(), self.pid, frozenset(self.monitors))
        for orphan in orphans:
            send_signal(orphan, signal.SIGKILL)
        # A child that lived when the scan began was seen, dead or alive: only we reap it, and not meanwhile.
        if not orphans:
            self.orphans_since = None
            self._tell_bereaved(ended=True)
            return None
        if now - self.orphans_since > _PROOF_SECONDS:
            self._tell_bereaved(ended=False)
            return _SLOW_ROUND_SECONDS
        return _ROUND_SECONDS

    def _tell_bereaved(self, *, ended: bool) -> None:
        for report in self.bereaved:
            send_report(report, ("orphaned", ended))
            report.close()
        self.bereaved.clear()


def _own_descriptors() -> socket:
    """Take the control socket, put /dev/null on the standard streams, close what a careless host left inheritable."""
    kept = os.dup(CONTROL_FD)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.set_inheritable(LOCK_FD, False)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > LOCK_FD and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:
                # The listing's own descriptor, closed by now.
                continue
    return socket(fileno=kept)


def _note_identity() -> None:
    """Write into the locked state file who we are, for a release from another process."""
    own = read_process(os.getpid())
    line = f"{os.getpid()} {own.start_ticks if own else 0} {boot_id()}\n".encode("ascii")
    os.pwrite(LOCK_FD, line, 0)


def main(arguments: list[str]) -> None:
    """Be the supervisor of a lease.

    Args:
        arguments: the resource's directory (for people who look at the process list, and for release), the orchestrator's
            pid, and the seconds between TERM and KILL when the orchestrator is gone or the lease is released.
    """
    _, orchestrator_pid, grace_seconds = arguments
    default_signals()
    os.setsid()
    os.chdir("/")
    control = _own_descriptors()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = Supervisor(control, int(orchestrator_pid), float(grace_seconds))
    _note_identity()
    # Forked children share what exists now; a collection in them would copy every page.
    gc.disable()
    gc.freeze()
    control.send(b"ready")
    supervisor.run()
    os._exit(0)
