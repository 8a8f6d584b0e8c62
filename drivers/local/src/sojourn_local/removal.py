"""Removes a tree that may be hostile: links are never followed, nothing outside is touched, modes do not stop it.

Every step goes through a descriptor of the directory it works in, so swapping a directory for a link changes nothing.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["remove_tree"]

_MAX_DEPTH = 64


def remove_tree(parent: Path, name: str) -> None:
    """Remove ``name`` in ``parent``, a file, link or whole directory; a missing one is fine.

    Raises:
        OSError: something in it cannot be removed, e.g. a mount point; the rest may be gone.
    """
    parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        removal = _Removal(parent_fd)
        removal.lifted.append(name)
        while removal.lifted:
            removal.remove(parent_fd, removal.lifted.pop(), 0)
    finally:
        os.close(parent_fd)


class _Removal:
    """One removal; very deep directories are moved up beside the top, so that neither stack nor descriptors run out."""

    def __init__(self, top_fd: int) -> None:
        self.top_fd = top_fd
        self.device = os.fstat(top_fd).st_dev
        self.moved = 0
        self.lifted: list[str] = []

    def remove(self, parent_fd: int, name: str, depth: int) -> None:
        try:
            os.unlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            return
        except OSError as error:
            # Linux says EISDIR for a directory; POSIX also allows EPERM.
            if error.errno not in (errno.EISDIR, errno.EPERM) or not _is_directory(parent_fd, name):
                raise
            self._remove_directory(parent_fd, name, depth)

    def _remove_directory(self, parent_fd: int, name: str, depth: int) -> None:
        directory_fd = self._open(parent_fd, name)
        try:
            if depth > _MAX_DEPTH:
                self._lift(parent_fd, name)
                return
            for entry in os.listdir(directory_fd):
                self.remove(directory_fd, entry, depth + 1)
        finally:
            os.close(directory_fd)
        os.rmdir(name, dir_fd=parent_fd)

    def _lift(self, parent_fd: int, name: str) -> None:
        self.moved += 1
        lifted = f".removing-{secrets.token_hex(6)}-{self.moved}"
        os.rename(name, lifted, src_dir_fd=parent_fd, dst_dir_fd=self.top_fd)
        self.lifted.append(lifted)

    def _open(self, parent_fd: int, name: str) -> int:
        """Open a directory, made accessible first: through a handle that follows no link and needs no permission."""
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            facts = os.fstat(handle)
            if facts.st_dev != self.device:
                raise OSError(errno.EXDEV, f"{name} is on another file system (a mount point?); unmount it first")
            if stat.S_IMODE(facts.st_mode) & 0o700 != 0o700:
                os.chmod(f"/proc/self/fd/{handle}", 0o700)
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(handle)


def _is_directory(parent_fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)
