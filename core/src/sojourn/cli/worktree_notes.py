"""What a person has to know about a run in a git worktree: what is not in it, and which branch holds its work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sojourn.cli.output import note
from sojourn.errors import WorkspaceError
from sojourn.workspace.git import git
from sojourn.workspace.worktrees import METADATA_KEY

if TYPE_CHECKING:
    from sojourn.session import Session

__all__ = ["WorktreeNotes"]


class WorktreeNotes:
    """Says it on stderr, and keeps it for the JSON document.

    Args:
        source: the caller's tree.
        quiet: say nothing.
    """

    def __init__(self, source: str, *, quiet: bool) -> None:
        self._source = Path(source)
        self._quiet = quiet
        self.branch: dict[str, Any] | None = None

    async def started(self, session: Session) -> None:
        """Say what of the source is not in the worktree."""
        worktree = session.lease.metadata[METADATA_KEY]
        changes = await self._uncommitted()
        self.branch = {
            "name": worktree["branch"],
            "base": worktree["base"],
            "uncommitted_changes": changes,
            "kept": None,
            "commits": None,
        }
        if changes:
            what = "1 uncommitted change is" if changes == 1 else f"{changes} uncommitted changes are"
            note(f"{what} not in the run's worktree of {self._source}", quiet=self._quiet)

    async def ended(self, session: Session) -> None:
        """Say where the work is now."""
        worktree = session.lease.metadata.get(METADATA_KEY)
        if self.branch is None or worktree is None:
            return
        name, base, repository = worktree["branch"], worktree["base"], Path(worktree["repository"])
        count = await git(repository, "rev-list", "--count", f"{base}..refs/heads/{name}", check=False)
        self.branch |= {"kept": bool(count), "commits": int(count) if count else None}
        if not count:
            note(f"the run left no changes; its branch {name} was removed", quiet=self._quiet)
        elif int(count):
            plural = "commit" if int(count) == 1 else "commits"
            note(f"the work is on branch {name} ({int(count)} {plural} on {base[:12]})", quiet=self._quiet)
        else:
            note(f"the run left no changes on branch {name}", quiet=self._quiet)

    async def _uncommitted(self) -> int | None:
        try:
            listed = await git(self._source, "status", "--porcelain", "--no-renames", "-z")
        except WorkspaceError:
            return None
        return listed.count(b"\0")
