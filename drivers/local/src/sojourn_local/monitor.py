"""The monitor of one command: starts it, is the subreaper of its whole tree, ends that tree and proves it gone.

Runs in a fork of the supervisor, without an exec. Every descendant of the command, setsid'd or double-forked, is re-parented
to this process, so "no children left" (ECHILD) is the proof that the tree is gone.

Reports to the orchestrator, each one marshalled tuple: ``("failed", step, errno)`` nothing ran; ``("exited", wait status,
tree gone)``; ``("gone",)`` the rest of the tree ended later; ``("ended", reason, tree gone)`` after a stop.
Requests from it: ``("stop", reason, grace seconds)``; ``("detach",)`` with the read ends of the output, to drain.
"""

from __future__ import annotations

import errno
import marshal
import os
import select
import signal
import time
from _socket import MSG_CMSG_CLOEXEC, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET, socket

from sojourn_local.kernel import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, wake_pipe
from sojourn_local.proctable import descendants, process_table, send_signal

TYPE_CHECKING = False  # instead of importing typing, which the supervisor would wait for
if TYPE_CHECKING:
    from typing import Any

__all__ = ["run_monitor", "send_report"]

PROOF_SECONDS = 1.5
_ROUND_SECONDS = 0.01
_SLOW_ROUND_SECONDS = 0.25
_DRAIN_BYTES = 1 << 16
_DEFAULT_PATH = b"/bin:/usr/bin"


def send_report(report: socket, message: tuple[Any, ...]) -> None:
    """Tell the orchestrator, if it is still there."""
    try:
        report.send(marshal.dumps(message), MSG_DONTWAIT)
    except OSError:
        # It is gone, or has hung up; the closing of the socket tells us so.
        return


def run_monitor(
    supervisor_pid: int, request_fd: int, report: socket, streams: list[int], release_grace_seconds: float
) -> None:
    """Run one command to its end and return when no process of it is left.

    Args:
        supervisor_pid: our parent; when it is another one, the supervisor has died.
        request_fd: a file with the marshalled request.
        report: the socket to the orchestrator.
        streams: the command's stdout and stderr and, if it gets one, its stdin.
        release_grace_seconds: between TERM and KILL when the orchestrator is gone or the lease is released.
    """
    wake_fd = wake_pipe()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor_pid:
        # It died before the line above could arrange for a signal; nothing runs yet.
        return
    monitor = Monitor(supervisor_pid, report, wake_fd, release_grace_seconds)
    monitor.start(_read_request(request_fd), streams)
    for descriptor in (request_fd, *streams):
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGCHLD))
    monitor.watch()


def _read_request(request_fd: int) -> dict[str, Any]:
    with open(request_fd, "rb", closefd=False) as file:
        file.seek(0)
        request: dict[str, Any] = marshal.load(file)  # noqa: S302 - written by our own orchestrator into a private file
    return request


class Monitor:
    """What is known of one command, and what has to be done next."""

    def __init__(self, supervisor_pid: int, report: socket, wake_fd: int, release_grace_seconds: float) -> None:
        self.supervisor_pid = supervisor_pid
        self.report = report
        self.wake_fd = wake_fd
        self.release_grace_seconds = release_grace_seconds
        self.main_pid = 0
        self.start_fd = -1
        self.limit_at: float | None = None
        self.limit_grace_seconds = 0.0
        self.tree_gone = False
        self.exit_told = False
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
        """Fork the command; called with SIGTERM and SIGCHLD blocked."""
        started_at = time.monotonic()
        self.limit_grace_seconds = request["grace_seconds"]
        if request["timeout_seconds"] is not None:
            self.limit_at = started_at + request["timeout_seconds"]
        self.start_fd, failure_fd = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            os.write(failure_fd, marshal.dumps(("fork", error.errno)))
        else:
            if pid == 0:
                become_command(request, streams, failure_fd)
            self.main_pid = pid
        os.close(failure_fd)
        self.poll.register(self.start_fd, select.POLLIN)

    def _on_start(self) -> None:
        """Read how the start went: nothing when the command's program was entered, else the step that failed."""
        failure = os.read(self.start_fd, 512)
        self.poll.unregister(self.start_fd)
        os.close(self.start_fd)
        self.start_fd = -1
        if failure:
            step, number = marshal.loads(failure)  # noqa: S302 - written by our own child before its exec
            self._tell_exit(("failed", step, number))

    # -- the loop -----------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Serve until the tree is gone."""
        while not self.tree_gone:
            timeout_seconds = self._advance()
            ready = dict(self.poll.poll(None if timeout_seconds is None else int(timeout_seconds * 1000) + 1))
            signals = os.read(self.wake_fd, 512) if self.wake_fd in ready else b""
            # Before any request to stop: what ended by itself is not called stopped.
            if self.start_fd in ready:
                self._on_start()
            self._reap()
            self._dispatch(ready, signals)
        if self.reason is None:
            self._tell_exit(("gone",))
        else:
            self._tell_end(gone=True)

    def _dispatch(self, ready: dict[int, int], signals: bytes) -> None:
        if signal.SIGTERM in signals:
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
        if self.start_fd >= 0:
            self._on_start()
        if self.reason is None:
            self._tell_exit(("exited", status, self.tree_gone))

    # -- what the orchestrator says -------------------------------------------------------------------------------------

    def _on_request(self) -> None:
        try:
            message, ancillary, _, _ = self.report.recvmsg(512, 64, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message, ancillary = b"", []
        request: tuple[Any, ...] = marshal.loads(message) if message else ("hung_up",)  # noqa: S302 - from our own orchestrator
        if request[0] == "stop":
            self._end(request[1], request[2])
            return
        self.attached = False
        self.poll.unregister(self.report.fileno())
        if request[0] == "hung_up":
            self._end("orchestrator_lost", self.release_grace_seconds)
        for level, kind, data in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                self._drain_from_now_on(memoryview(data[: len(data) & ~3]).cast("i").tolist())

    def _drain_from_now_on(self, descriptors: list[int]) -> None:
        """Read and drop late output, so that a background child does not die of a closed pipe."""
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

    # -- what we tell it ------------------------------------------------------------------------------------------------

    def _tell_exit(self, message: tuple[Any, ...]) -> None:
        send_report(self.report, message)

    def _tell_end(self, *, gone: bool) -> None:
        if not self.end_told:
            self.end_told = True
            send_report(self.report, ("ended", self.reason, gone))

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

    def _advance(self) -> float | None:
        """Do what is due now; give the seconds until something is due again, None for never."""
        now = time.monotonic()
        if self.reason is None:
            if self.limit_at is None or now < self.limit_at:
                return None if self.limit_at is None else self.limit_at - now
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


# -- in the command's own process -------------------------------------------------------------------------------------


def become_command(request: dict[str, Any], streams: list[int], failure_fd: int) -> None:
    """Turn this fresh fork into the command; on failure tell which step it was and exit. Never returns."""
    step = "setup"
    try:
        os.setsid()
        for target, source in zip((1, 2, 0), streams, strict=False):
            os.dup2(source, target)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        step = "user"
        if request["identity"] is not None:
            uid, gid, groups = request["identity"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        step = "cwd"
        os.chdir(request["cwd"])
        step = "exec"
        _execute(request["argv"], request["env"])
    except OSError as error:
        os.write(failure_fd, marshal.dumps((step, error.errno or errno.EIO)))
    except BaseException:  # noqa: BLE001 - a fork of the monitor must not return into its loop
        os.write(failure_fd, marshal.dumps((step, errno.EINVAL)))
    finally:
        os._exit(127)


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """Enter the program, looked up on the command's own PATH as a shell would do; returns only by raising OSError."""
    denied = None
    for path in _candidates(argv[0], env.get(b"PATH", _DEFAULT_PATH)):
        try:
            os.stat(path)
            os.execve(path, argv, env)  # noqa: S606 - this is the purpose; no shell is involved
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _candidates(name: bytes, path: bytes) -> list[bytes]:
    if b"/" in name:
        return [name]
    return [(directory or b".") + b"/" + name for directory in path.split(b":")] if name else []
