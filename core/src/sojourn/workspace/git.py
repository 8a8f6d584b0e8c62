"""Ask git, and nothing else: no hooks, no prompts, no user configuration that could run code or change the answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sojourn.errors import WorkspaceError

__all__ = ["git", "top_level"]

TIMEOUT_SECONDS = 120.0
SETTINGS = tuple(
    word
    for setting in ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false")
    for word in ("-c", setting)
)


async def git(
    directory: Path, *arguments: str, check: bool = True, index: Path | None = None, keep: tuple[int, ...] = ()
) -> bytes:
    """Run git in ``directory`` and return its stdout.

    Args:
        directory: where.
        arguments: of git.
        check: raise when it fails; else a failure returns ``b""``.
        index: use this index file instead of the repository's own, which stays as it is.
        keep: descriptors that git keeps open for as long as it runs.

    Raises:
        WorkspaceError: git is missing, failed, or took longer than two minutes.
    """
    # Hooks of the repository are somebody else's code; locks left by us would block the user's own git.
    # Nothing may be left at work in the background.
    command = ("git", *SETTINGS, "-C", str(directory), *arguments)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(index),
            pass_fds=keep,
        )
    except FileNotFoundError:
        raise WorkspaceError(str(directory), "git is not installed; install it, or use another mode") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    except (TimeoutError, asyncio.CancelledError) as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise WorkspaceError(str(directory), f"git {arguments[0]} took longer than {TIMEOUT_SECONDS:g} s") from None
        raise
    if process.returncode != 0 and check:
        reason = err.decode("utf-8", "replace").strip().splitlines()
        raise WorkspaceError(
            str(directory), f"git {arguments[0]} failed: {reason[-1] if reason else process.returncode}"
        )
    return out if process.returncode == 0 else b""


async def top_level(directory: Path) -> Path | None:
    """Return the root of the git work tree that ``directory`` is in, or None."""
    out = await git(directory, "rev-parse", "--show-toplevel", check=False)
    return Path(os.fsdecode(out.removesuffix(b"\n"))) if out.strip() else None


def _environment(index: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    kept |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return kept | ({"GIT_INDEX_FILE": str(index)} if index else {})
