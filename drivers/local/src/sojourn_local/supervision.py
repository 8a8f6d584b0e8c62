"""The orchestrator's side of a lease's supervisor: start it, hand commands to it, notice its death, reap it.

A supervisor's state file is locked for as long as it or one of its monitors lives (the lock belongs to the open file, which
they inherit; commands do not): whoever gets the lock has the proof that they are gone. See `sojourn_local.ending`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import select
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from sojourn import Unavailable, Unsupported
from sojourn_local import launch
from sojourn_local.ending import STATE_DIRECTORY, has_living_supervisor, sweep_marked, wait_unlocked
from sojourn_local.failures import SupervisorEnded, translated
from sojourn_local.monitor import PROOF_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Supervision", "SupervisorProcess"]

_START_SECONDS = 20.0
_HUNG_UP = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
_HOST_VARIABLES = ("LD_LIBRARY_PATH",)
"""What the interpreter itself may need to start; commands do not get it from there."""


class SupervisorProcess:
    """One running supervisor; made by `start`. Belongs to the process that started it, and to no event loop."""

    def __init__(self, pid: int, control: socket.socket, state_file: Path) -> None:
        self.owner_pid = os.getpid()
        self.pid = pid
        self.state_file = state_file
        self._control = control
        self._closing = False
        self._reaped = False
        # It is our unreaped child, so the pid cannot be anybody else's.
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    def start(cls, directory: Path, grace_seconds: float) -> SupervisorProcess:
        """Start a supervisor for the resource at ``directory``; blocks some 30 ms.

        Raises:
            DriverError: it could not be started; nothing runs.
        """
        if not sys.executable:
            raise Unsupported("this program does not know its Python interpreter (sys.executable is empty)")
        with translated(f"starting a supervisor in {directory}"):
            state_file, lock_fd = _create_locked(directory / STATE_DIRECTORY)
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    pid = _spawn(directory, grace_seconds, theirs.fileno(), lock_fd)
            finally:
                os.close(lock_fd)
        supervisor = cls(pid, ours, state_file)
        ours.settimeout(_START_SECONDS)
        try:
            ready = ours.recv(16) == b"ready"
        except OSError:
            ready = False
        if not ready:
            supervisor.kill()
            raise Unavailable(f"the supervisor of {directory} did not start ({sys.executable} -I -S {launch.__file__})")
        ours.setblocking(False)
        return supervisor

    @property
    def alive(self) -> bool:
        """Whether it runs and takes commands."""
        if self._closing or self._reaped:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def submit(self, descriptors: list[int]) -> None:
        """Hand one command over; see `Command.run`.

        Raises:
            SupervisorEnded: it is not there any more; nothing ran.
        """
        try:
            socket.send_fds(self._control, [b"command"], descriptors)
        except OSError as error:
            if error.errno not in _HUNG_UP:
                raise
            raise SupervisorEnded("the supervisor of the lease has just ended; nothing ran") from error

    def retire(self) -> None:
        """Give it no more commands: it is ending."""
        self._closing = True

    def hang_up(self) -> None:
        """Tell it that its orchestrator needs it no more: it ends every tree, then itself."""
        self._closing = True
        self._control.close()

    def kill(self) -> None:
        """End it at once and reap it."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            # It was faster.
            pass
        self.reap(_START_SECONDS)

    def reap(self, seconds: float) -> bool:
        """Wait for its end; say whether it came in time. Its descriptors are closed then."""
        if self._reaped:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            # The host application reaps every child of its process.
            pass
        self.forget()
        self._reaped = True
        return True

    def forget(self) -> None:
        """Close our descriptors without waiting."""
        self._control.close()
        os.close(self._pidfd)


class Supervision:
    """At most one living supervisor for one resource; safe to use from several threads."""

    def __init__(self, directory: Path, grace_seconds: float) -> None:
        self.directory = directory
        self.grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._current: SupervisorProcess | None = None

    def living(self) -> SupervisorProcess | None:
        """Return the supervisor if it runs; does not block."""
        current = self._current
        return current if current is not None and current.owner_pid == os.getpid() and current.alive else None

    def ensure(self) -> SupervisorProcess:
        """Return a running supervisor; start one where there is none. Blocks. Call it inside the resource's gate.

        Raises:
            DriverError: it could not be started; nothing runs.
        """
        with self._lock:
            living = self.living()
            if living is not None:
                return living
            self._bury()
            self._current = SupervisorProcess.start(self.directory, self.grace_seconds)
            return self._current

    def hang_up(self) -> None:
        """Let the supervisor begin to end; `end` waits for it."""
        with self._lock:
            if self._current is not None and self._current.owner_pid == os.getpid():
                self._current.hang_up()

    def end(self, seconds: float) -> bool:
        """Hang up, wait for the supervisor's end and reap it; say whether it came within ``seconds``."""
        with self._lock:
            current, self._current = self._current, None
            if current is None or current.owner_pid != os.getpid():
                return True
            current.hang_up()
            if current.reap(seconds):
                return True
            self._current = current
            return False

    def _bury(self) -> None:
        """See what a dead supervisor left behind gone, before another one starts."""
        dead, self._current = self._current, None
        if dead is None:
            return
        if dead.owner_pid != os.getpid():
            dead.forget()
            return
        # It may have been told to end by another process, and be waiting for its trees.
        seconds = self.grace_seconds + PROOF_SECONDS + 0.5
        if not dead.reap(seconds) or not wait_unlocked(dead.state_file, seconds):
            self._current = dead
            raise Unavailable(f"commands of an earlier supervisor of {self.directory} have not ended yet")
        if not has_living_supervisor(self.directory):
            # Trees whose monitors were killed together with it; no other orchestrator's commands are here.
            sweep_marked(self.directory)
        dead.state_file.unlink(missing_ok=True)


def _create_locked(parent: Path) -> tuple[Path, int]:
    path = parent / secrets.token_hex(8)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path, descriptor


def _spawn(directory: Path, grace_seconds: float, control_fd: int, lock_fd: int) -> int:
    argv = [sys.executable, "-I", "-S", str(launch.__file__), str(directory), str(os.getpid()), repr(grace_seconds)]
    env = {name: os.environ[name] for name in _HOST_VARIABLES if name in os.environ}
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # Far from the low numbers that they are moved to, in an order that overwrites none before it was copied.
    high_control, high_lock = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (control_fd, lock_fd))
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, high_control, 0),
                (os.POSIX_SPAWN_DUP2, null_fd, 1),
                (os.POSIX_SPAWN_DUP2, null_fd, 2),
                (os.POSIX_SPAWN_DUP2, high_lock, 3),
            ],
        )
    finally:
        for descriptor in (null_fd, high_control, high_lock):
            os.close(descriptor)
