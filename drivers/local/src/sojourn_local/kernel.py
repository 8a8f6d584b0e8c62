"""The few calls into the kernel that the standard library lacks: prctl, and a pipe that signals wake.

Standard library only: the supervisor imports this module.
"""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = [
    "PR_GET_CHILD_SUBREAPER",
    "PR_SET_CHILD_SUBREAPER",
    "PR_SET_PDEATHSIG",
    "default_signals",
    "get_subreaper",
    "prctl",
    "wake_pipe",
]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37

# Looked up when the module is imported, so that forked children only have to call it.
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Change a setting of this process.

    Raises:
        OSError: the kernel does not know or not allow it.
    """
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def get_subreaper() -> bool:
    """Say whether this process is a subreaper.

    Raises:
        OSError: the kernel has no subreapers.
    """
    flag = ctypes.c_int(0)
    if _libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return bool(flag.value)


def wake_pipe() -> int:
    """Let SIGCHLD and SIGTERM write their number into a new pipe; give its read end, to poll."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    inherited_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    if inherited_fd >= 0:
        os.close(inherited_fd)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, _noted)
    return read_fd


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: the byte in the pipe is what counts."""


def default_signals() -> None:
    """Undo what the starting program chose for its signals, so that commands get the defaults; SIGPIPE is ignored here."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
