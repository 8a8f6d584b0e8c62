"""Decides whether a caller's own directory may be a workspace in place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sojourn import InvalidArgument

if TYPE_CHECKING:
    from sojourn_local.config import LocalConfig

__all__ = ["in_place_root"]


def in_place_root(local_path: str, config: LocalConfig) -> str:
    """Return the resolved directory; it is never made, emptied or removed by this driver.

    Raises:
        InvalidArgument: it is no directory that we may enter, or one that nobody means as a workspace.
    """
    if not local_path.startswith("/") or "\0" in local_path:
        raise InvalidArgument(f"workspace {local_path!r} is not an absolute path")
    try:
        root = Path(local_path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "too many links"
        raise InvalidArgument(f"workspace {local_path!r} cannot be used: {reason}") from error
    if not root.is_dir():
        raise InvalidArgument(f"workspace {local_path!r} cannot be used: it is not a directory")
    if not os.access(root, os.R_OK | os.X_OK):
        raise InvalidArgument(f"workspace {local_path!r} cannot be used: we may not enter it")
    if root in _never_meant() and not config.allow_unsafe_root:
        raise InvalidArgument(
            f"workspace {local_path!r} is the root or the home directory; name a project in it, or set allow_unsafe_root"
        )
    return str(root)


def _never_meant() -> set[Path]:
    return {Path("/"), Path(os.path.expanduser("~")).resolve()}
