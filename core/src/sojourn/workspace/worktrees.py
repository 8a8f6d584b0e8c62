"""A git worktree of the caller's repository for one run: made, and taken away without losing what the run left in it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from sojourn import wire
from sojourn.errors import DriverError, WorkspaceError
from sojourn.hosts import this_process
from sojourn.paths import state_dir
from sojourn.records import Lease
from sojourn.workspace.git import git, top_level

__all__ = [
    "METADATA_KEY",
    "Worktree",
    "WorktreeNotRemoved",
    "make_worktree",
    "plan_worktree",
    "remove_recorded_worktree",
]

METADATA_KEY = "git_worktree"
AUTHOR = ("-c", "user.name=sojourn", "-c", "user.email=sojourn@localhost", "-c", "commit.gpgsign=false")
PATIENCE_SECONDS = 30.0


class WorktreeNotRemoved(DriverError):
    """The run's worktree is still there; nothing in it was lost."""


@attrs.frozen(kw_only=True)
class Worktree:
    """A worktree of a run; recorded with its lease before it is made, so that a crash leaves nothing unknown.

    Args:
        repository: root of the caller's work tree.
        path: of the worktree.
        folder: of the workspace within it, ``.`` for all of it.
        branch: that the run works on.
        made_branch: whether the branch is ours to delete when the run left nothing on it.
        base: commit it started from.
        host_id: where it is.
    """

    repository: str
    path: str
    folder: str
    branch: str
    made_branch: bool
    base: str
    host_id: str

    @property
    def workspace(self) -> str:
        """The workspace's root inside the worktree."""
        return str(Path(self.path) / self.folder)


async def plan_worktree(source: Path, resource_id: str, branch: str | None) -> Worktree:
    """Say which worktree a run would get; makes nothing.

    Raises:
        WorkspaceError: not a git work tree, no commit yet, or the branch is not there or checked out elsewhere.
    """
    repository = await top_level(source)
    if repository is None:
        raise WorkspaceError(str(source), "is not in a git work tree; use mode copy or in_place")
    head = await git(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False)
    if not head:
        raise WorkspaceError(str(source), "its git repository has no commit yet; commit first, or use mode copy")
    if branch is not None:
        await git(repository, "check-ref-format", "--branch", branch)
        head = await git(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", check=False)
        if not head:
            raise WorkspaceError(str(repository), f"has no branch {branch!r}; make it first, or leave the branch out")
    return Worktree(
        repository=str(repository),
        path=str(state_dir() / "worktrees" / resource_id),
        folder=str(source.resolve().relative_to(repository.resolve())),
        branch=branch or f"sojourn/{resource_id}",
        made_branch=branch is None,
        base=head.decode().strip(),
        host_id=this_process().host_id,
    )


async def make_worktree(worktree: Worktree) -> None:
    """Make the worktree; one that is there already is the same one.

    Raises:
        WorkspaceError: git could not.
    """
    path = Path(worktree.path)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    new_branch = (
        ("-b", worktree.branch, str(path), worktree.base) if worktree.made_branch else (str(path), worktree.branch)
    )
    async with _held(path) as held:
        if (path / ".git").exists():
            return
        await git(Path(worktree.repository), "worktree", "add", "--quiet", *new_branch, keep=held)
    if not Path(worktree.workspace).is_dir():
        raise WorkspaceError(
            worktree.folder, f"is not part of commit {worktree.base[:12]}; commit it, or use mode copy"
        )


async def remove_recorded_worktree(lease: Lease) -> None:
    """Take away the worktree that the lease recorded, if there is one; uncommitted work is committed to its branch first.

    Raises:
        WorktreeNotRemoved: it is on another host, or git could not; nothing was lost.
    """
    data = lease.metadata.get(METADATA_KEY)
    if not isinstance(data, Mapping):
        return
    worktree = wire.load(Worktree, data, path=f"metadata.{METADATA_KEY}", unknown="ignore")
    if worktree.host_id != this_process().host_id:
        raise WorktreeNotRemoved(f"git worktree {worktree.path} is on another host; run `sojourn reap` there")
    try:
        await _remove(worktree, lease)
    except WorkspaceError as error:
        raise WorktreeNotRemoved(f"git worktree {worktree.path} could not be removed: {error}") from error


async def _remove(worktree: Worktree, lease: Lease) -> None:
    repository, path = Path(worktree.repository), Path(worktree.path)
    if not repository.is_dir():
        # Its objects are gone with the repository; what is left is plain files that nobody can commit.
        if path.exists():
            raise WorkspaceError(
                str(repository), f"the repository is gone; look at what is left in {path}, then remove it"
            )
        return
    async with _held(path) as held:
        if (path / ".git").exists():
            await _save(path, lease, held)
            # Twice: git locks a worktree while it makes it, and a crash leaves it locked.
            await git(repository, "worktree", "remove", "--force", "--force", str(path), keep=held)
        elif path.exists():
            await asyncio.to_thread(shutil.rmtree, path)
    await git(repository, "worktree", "unlock", str(path), check=False)
    await git(repository, "worktree", "prune")
    if worktree.made_branch and await _head(repository, worktree.branch) == worktree.base:
        await git(repository, "branch", "--quiet", "-D", worktree.branch)


@asynccontextmanager
async def _held(path: Path) -> AsyncIterator[tuple[int, ...]]:
    """Be the only one at work in the worktree's folder; what it gives goes to every git that is started meanwhile.

    A git process outlives the orchestrator that is killed beside it. The lock belongs to the open folder, which it keeps, so a
    sweep waits until it has ended: what it would still make or commit is not missed.

    Raises:
        WorkspaceError: somebody is at work in it for too long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # Made before git is called, so there is none.
        yield ()
        return
    except OSError as error:
        raise WorkspaceError(str(path), f"cannot be used as a git worktree: {error.strerror}") from error
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while not _locked(descriptor):
            if time.monotonic() > until:
                raise WorkspaceError(
                    str(path), "is still being worked in by a git process; try again when it has ended"
                )
            await asyncio.sleep(0.02)
        yield (descriptor,)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _save(path: Path, lease: Lease, held: tuple[int, ...]) -> None:
    """Commit what the run left uncommitted, without the repository's hooks and without its own index being trusted."""
    if not (await git(path, "status", "--porcelain", "--ignore-submodules=none")).strip():
        return
    who = lease.context.run_id or lease.id
    message = f"Uncommitted changes left by run {who}"
    await git(path, "add", "--all", keep=held)
    await git(path, *AUTHOR, "commit", "--quiet", "--no-verify", "--message", message, keep=held)


async def _head(repository: Path, branch: str) -> str:
    return (
        (await git(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False))
        .decode()
        .strip()
    )
