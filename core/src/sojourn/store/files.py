"""The SQLite file: where it is, that nobody else can read it, and that it is one that we may use."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING

from sojourn.errors import StoreUnwritable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["identity", "prepare"]

# Closing any descriptor of a database file drops the POSIX locks that SQLite holds on it in this process. So we open
# only a file that does not exist yet, and no second store of this process looks at it before we have closed it again.
_creating = threading.Lock()


def prepare(path: Path) -> None:
    """Create the file (0600) and its directory (0700) if they are not there; refuse what is not safe to use.

    Args:
        path: absolute.

    Raises:
        StoreUnwritable: it is a directory, a symbolic link or another user's, its directory may be written by everybody,
            or it cannot be created.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(path.parent)
        with _creating:
            if not _create(path):
                _check_file(path)
    except OSError as error:
        raise StoreUnwritable(
            f"store {path} cannot be created: {error.strerror}; check its directory, or name another with SOJOURN_STORE"
        ) from error


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from another that takes its place; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(path: Path) -> bool:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        return False
    os.close(descriptor)
    return True


def _check_directory(directory: Path) -> None:
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise StoreUnwritable(
            f"directory {directory} of the store may be written by everybody; run: chmod o-w {directory}"
        )


def _check_file(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise StoreUnwritable(f"store {path} is a symbolic link; name the file it points to")
    if not stat.S_ISREG(found.st_mode):
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "special file"
        raise StoreUnwritable(f"store {path} is a {kind}; name a file in it or beside it")
    if os.geteuid() not in (0, found.st_uid):
        raise StoreUnwritable(
            f"store {path} belongs to another user (uid {found.st_uid}); name another with SOJOURN_STORE"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
