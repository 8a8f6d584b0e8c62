"""Translates what the operating system refuses into the driver errors of the contract; the only place that does.

errno                              raised
ENOSPC EDQUOT EMFILE ENFILE        ResourceExhausted
ENOMEM EAGAIN                      ResourceExhausted
EACCES EPERM EROFS                 PermissionDenied
any other                          Unavailable
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sojourn import DriverError, InvalidArgument, PermissionDenied, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SupervisorEnded", "start_failure", "translated", "translation"]


class SupervisorEnded(Unavailable):
    """A command could not be handed over and did not run; another supervisor can take it."""


_TABLE: dict[int, type[DriverError]] = {
    errno.ENOSPC: ResourceExhausted,
    errno.EDQUOT: ResourceExhausted,
    errno.EMFILE: ResourceExhausted,
    errno.ENFILE: ResourceExhausted,
    errno.ETOOMANYREFS: ResourceExhausted,
    errno.ENOMEM: ResourceExhausted,
    errno.EAGAIN: ResourceExhausted,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: PermissionDenied,
}
_NEXT_STEP: dict[type[DriverError], str] = {
    ResourceExhausted: "make room or raise the limit, then try again",
    PermissionDenied: "check the owner, the mode and the mount of that place",
}


def translation(error: OSError, tried: str) -> DriverError:
    """Return the driver error for ``error``; ``tried`` says what was done to what."""
    kind = _TABLE.get(error.errno or 0, Unavailable)
    next_step = _NEXT_STEP.get(kind)
    return kind(f"{tried}: {error.strerror or error}" + (f"; {next_step}" if next_step else ""))


@contextmanager
def translated(tried: str) -> Iterator[None]:
    """Turn an OSError of the block into a driver error, from the original."""
    try:
        yield
    except OSError as error:
        raise translation(error, tried) from error


def start_failure(step: str, number: int, program: bytes, cwd: bytes) -> tuple[int, bytes]:
    """Say what a command that could not be started counts as.

    Args:
        step: where it failed: ``fork``, ``setup``, ``user``, ``cwd``, ``exec``.
        number: the errno.
        program: the first word of its argv.
        cwd: its working directory.

    Returns:
        The exit status that a shell would give, 127 or 126, and the line for stderr.

    Raises:
        InvalidArgument: the working directory or the argument list cannot be used.
        DriverError: the machine refused; nothing ran.
    """
    reason = os.strerror(number)
    if step == "cwd":
        raise InvalidArgument(f"working directory {os.fsdecode(cwd)!r} cannot be entered: {reason}")
    if step != "exec" or number in (errno.ENOMEM, errno.EAGAIN):
        raise translation(OSError(number, reason), f"starting a command (step {step!r})")
    if number == errno.E2BIG:
        raise InvalidArgument("the arguments and environment are longer than the system allows; pass data on stdin")
    if number == errno.ENOENT:
        return 127, b"sojourn: " + program + b": not found\n"
    return 126, b"sojourn: " + program + b": " + reason.encode() + b"\n"
