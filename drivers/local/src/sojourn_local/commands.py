"""Starts a command as a child of its monitor: own session, default signals, its own directory, environment and user.

Standard library only, and little of it: the supervisor imports this module.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal

TYPE_CHECKING = False  # instead of importing typing, which the supervisor would wait for
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["StartError", "start_command"]

_DEFAULT_PATH = b"/bin:/usr/bin"
_MISSING = (FileNotFoundError, NotADirectoryError)


class StartError(Exception):
    """The command did not start: at which step (``fork``, ``setup``, ``user``, ``cwd``, ``exec``), with which errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


def start_command(request: dict[str, Any], streams: list[int]) -> int:
    """Start it and return its pid; its program has been entered then.

    Args:
        request: ``argv``, ``env`` and ``cwd`` as bytes, and ``identity``: uid, gid and groups of another user, or None.
        streams: its stdout and stderr and, if it gets one, its stdin.

    Raises:
        StartError: nothing runs.
    """
    if request["identity"] is not None:
        return _fork(request, streams)
    try:
        os.chdir(request["cwd"])
    except OSError as error:
        raise StartError("cwd", error.errno or errno.EIO) from error
    try:
        return _enter(request["argv"], request["env"], streams)
    except OSError as error:
        raise StartError("exec", error.errno or errno.EIO) from error
    finally:
        os.chdir("/")


def _enter(argv: list[bytes], env: dict[bytes, bytes], streams: list[int]) -> int:
    """Spawn it, which costs half of a fork: the kernel does not copy our page tables."""
    actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in zip((1, 2, 0), streams, strict=False)]
    denied = None
    for path in _candidates(argv[0], env):
        try:
            return os.posix_spawn(
                path, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=(signal.SIGPIPE,)
            )
        except _MISSING:
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _candidates(name: bytes, env: dict[bytes, bytes]) -> Iterator[bytes]:
    """Give where the program is on the command's own PATH; a directory that cannot be searched holds nothing, as in a shell."""
    if b"/" in name:
        yield name
        return
    for directory in env.get(b"PATH", _DEFAULT_PATH).split(b":"):
        path = (directory or b".") + b"/" + name
        if os.access(path, os.F_OK):
            yield path


def _fork(request: dict[str, Any], streams: list[int]) -> int:
    """Fork it: only a process of its own can become another user before it enters the directory and the program."""
    failure_fd, child_failure_fd = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _become(request, streams, child_failure_fd)
    except OSError as error:
        os.close(failure_fd)
        raise StartError("fork", error.errno or errno.EIO) from error
    finally:
        os.close(child_failure_fd)
    failure = os.read(failure_fd, 512)
    os.close(failure_fd)
    if failure:
        raise StartError(*marshal.loads(failure))  # noqa: S302 - written by our own child before its exec
    return pid


def _become(request: dict[str, Any], streams: list[int], failure_fd: int) -> None:
    """Turn this fresh fork into the command; on failure tell which step it was and exit. Never returns."""
    step = "setup"
    try:
        os.setsid()
        for target, source in zip((1, 2, 0), streams, strict=False):
            os.dup2(source, target)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        step = "user"
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
    denied = None
    for path in _candidates(argv[0], env):
        try:
            os.execve(path, argv, env)  # noqa: S606 - this is the purpose; no shell is involved
        except _MISSING:
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
