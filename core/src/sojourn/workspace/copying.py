"""Copy a source tree on this machine: planned first, refused whole when something in it cannot travel, links never followed."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs

from sojourn.errors import WorkspaceError
from sojourn.workspace.git import git, top_level

__all__ = ["CopyPlan", "copy_tree", "plan_copy"]

EXCLUDED_OUTSIDE_GIT = frozenset({".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".tox", ".mypy_cache"})
"""Names that are left out where there is no git to ask: they can be made again, and are large."""

COPY_PIECE_BYTES = 1024 * 1024


@attrs.frozen(kw_only=True)
class CopyPlan:
    """What would be copied: relative paths as bytes, folders before what is in them."""

    source: str
    entries: tuple[bytes, ...]
    total_bytes: int


async def plan_copy(source: Path, exclude: Sequence[str] = (), leave_out: Collection[tuple[int, int]] = ()) -> CopyPlan:
    """Say what of ``source`` travels: in a git work tree tracked and untracked-not-ignored files, else all but excludes.

    ``.git`` itself does not travel.

    Args:
        source: the tree.
        exclude: what else stays behind, in the syntax of ``.gitignore``.
        leave_out: files that must not be opened, by device and inode.

    Raises:
        WorkspaceError: the tree is missing or unreadable, or something in it is neither file, folder nor link.
    """
    check_source(source)
    if source.resolve() == Path("/"):
        raise WorkspaceError(str(source), "is the root of this machine; name a project in it")
    names = await _git_names(source) if await top_level(source) else None
    return await asyncio.to_thread(_plan, source, names, exclude, leave_out)


def _plan(
    source: Path, names: list[bytes] | None, exclude: Sequence[str], leave_out: Collection[tuple[int, int]]
) -> CopyPlan:
    entries = [*_listed(source, names)] if names is not None else [*_walked(os.fsencode(source))]
    if exclude:
        entries = [*_kept(source, entries, exclude)]
    root = os.fsencode(source)
    found = [(entry, os.lstat(os.path.join(root, entry))) for entry in entries]
    found = [(entry, status) for entry, status in found if (status.st_dev, status.st_ino) not in leave_out]
    total = sum(_checked_size(os.path.join(root, entry), status) for entry, status in found)
    return CopyPlan(source=str(source), entries=tuple(entry for entry, _ in found), total_bytes=total)


def _kept(source: Path, entries: list[bytes], exclude: Sequence[str]) -> Iterator[bytes]:
    # Imported here: most runs exclude nothing.
    from pathspec import GitIgnoreSpec

    spec = GitIgnoreSpec.from_lines(exclude)
    gone: set[bytes] = set()
    for entry in entries:
        name = os.fsdecode(entry)
        folder = (source / name).is_dir() and not (source / name).is_symlink()
        if os.path.dirname(entry) in gone or spec.match_file(name + "/" if folder else name):
            gone.add(entry)
        else:
            yield entry


def check_source(source: Path) -> None:
    """Check that ``source`` is a folder that we may read.

    Raises:
        WorkspaceError: naming it and the reason.
    """
    if "\0" in str(source):
        raise WorkspaceError(str(source), "holds a NUL character, which no path can")
    try:
        with os.scandir(source):
            pass
    except FileNotFoundError:
        raise WorkspaceError(str(source), "does not exist") from None
    except NotADirectoryError:
        raise WorkspaceError(str(source), "is not a folder") from None
    except OSError as error:
        raise WorkspaceError(str(source), f"cannot be read: {error.strerror}") from None


async def _git_names(source: Path) -> list[bytes]:
    out = await git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
    return [name for name in out.split(b"\0") if name]


def _listed(source: Path, names: list[bytes]) -> Iterator[bytes]:
    """Yield git's names with the folders they need; a folder among them is a submodule or a repository of its own."""
    root = os.fsencode(source)
    seen: set[bytes] = set()
    for name in sorted(names):
        name = name.rstrip(b"/")
        if not os.path.lexists(os.path.join(root, name)):
            continue  # deleted, and git was not told
        yield from _folders_of(name, seen)
        yield name
        if stat.S_ISDIR(os.lstat(os.path.join(root, name)).st_mode):
            yield from (os.path.join(name, inner) for inner in _walked(os.path.join(root, name)))


def _folders_of(name: bytes, seen: set[bytes]) -> Iterator[bytes]:
    parts = name.split(b"/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = b"/".join(parts[:depth])
        if folder not in seen:
            seen.add(folder)
            yield folder


def _walked(root: bytes, below: bytes = b"") -> Iterator[bytes]:
    try:
        found = sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name)
    except OSError as error:
        raise WorkspaceError(os.fsdecode(os.path.join(root, below)), f"cannot be read: {error.strerror}") from None
    for entry in found:
        if os.fsdecode(entry.name) in EXCLUDED_OUTSIDE_GIT:
            continue
        path = os.path.join(below, entry.name)
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(root, path)


def _checked_size(path: bytes, status: os.stat_result) -> int:
    if stat.S_ISREG(status.st_mode):
        if not os.access(path, os.R_OK):
            raise WorkspaceError(os.fsdecode(path), "cannot be read: Permission denied")
        return status.st_size
    if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
        return 0
    raise WorkspaceError(os.fsdecode(path), "is a pipe, socket or device; only files, folders and links are copied")


async def copy_tree(plan: CopyPlan, target: Path) -> None:
    """Copy what was planned into ``target``, an existing empty folder.

    Every step goes through folder descriptors and follows no link, so that a tree that changes meanwhile can lead neither the
    reading nor the writing elsewhere. Modes and modification times are kept. When the caller is cancelled, the copying has
    ended before CancelledError is raised: nothing is written any more.

    Raises:
        WorkspaceError: something changed into what it was not when it was planned, or could not be copied.
    """
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_copy_all, plan, target, stop))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()
        raise


def _copy_all(plan: CopyPlan, target: Path, stop: threading.Event) -> None:
    source_fd = os.open(plan.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    folders: list[tuple[bytes, int]] = []
    try:
        for entry in plan.entries:
            if stop.is_set():
                return
            try:
                mode = _copy_entry(source_fd, target_fd, entry)
            except OSError as error:
                path = os.path.join(os.fsencode(plan.source), entry)
                raise WorkspaceError(os.fsdecode(path), f"could not be copied: {error.strerror}") from error
            if mode is not None:
                folders.append((entry, mode))
        # Last, for a folder may be read-only.
        for entry, mode in reversed(folders):
            _at(target_fd, entry, partial(_set_mode, mode))
    finally:
        os.close(source_fd)
        os.close(target_fd)


def _set_mode(mode: int, parent: int, name: bytes) -> None:
    os.chmod(name, mode, dir_fd=parent)


def _copy_entry(source_fd: int, target_fd: int, entry: bytes) -> int | None:
    """Copy one entry; for a folder return its mode, to be set when its contents are there."""

    def copy(source_parent: int, name: bytes) -> int | None:
        status = os.stat(name, dir_fd=source_parent, follow_symlinks=False)
        return _at(target_fd, entry, lambda target_parent, _: _copy_as(status, source_parent, target_parent, name))

    return _at(source_fd, entry, copy)


def _copy_as(status: os.stat_result, source_parent: int, target_parent: int, name: bytes) -> int | None:
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=target_parent)
        return stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_parent), name, dir_fd=target_parent)
        return None
    _copy_file(source_parent, target_parent, name)
    return None


def _copy_file(source_parent: int, target_parent: int, name: bytes) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=source_parent), "rb", buffering=0) as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file any more")
        create = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, create, 0o600, dir_fd=target_parent), "wb", buffering=0) as target:
            while os.sendfile(target.fileno(), source.fileno(), None, COPY_PIECE_BYTES):
                pass
            # setuid and setgid do not travel: whoever runs in the copy did not get them from its owner.
            os.fchmod(target.fileno(), stat.S_IMODE(status.st_mode) & 0o777)
            os.utime(target.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def _at(root_fd: int, entry: bytes, act: Callable[[int, bytes], int | None]) -> int | None:
    """Call ``act(parent_fd, name)`` for an entry below ``root_fd``, descending without following links."""
    *folders, name = entry.split(b"/")
    fd = os.dup(root_fd)
    try:
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(folder, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
        return act(fd, name)
    finally:
        os.close(fd)
