"""Which declaration holds for a folder: the nearest ``sojourn.toml`` or ``pyproject.toml`` with ``[tool.sojourn]``."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path

from sojourn.declarations import FILE_NAME, MAX_BYTES, PYPROJECT, DeclarationError

__all__ = ["find_declaration"]


def find_declaration(start: Path) -> Path | None:
    """Return the declaration that holds for ``start``: the nearest one upwards.

    The search ends at a repository's root, and below a folder where everybody may write: what lies there is not the user's.

    Raises:
        DeclarationError: a file is there and cannot be looked at.
    """
    folder = start.resolve()
    if not os.access(folder, os.X_OK):
        return None  # a workspace that cannot be entered stops the run, and that says why
    for candidate in (folder, *folder.parents):
        if candidate != folder and _open_to_everybody(candidate):
            return None
        if _is_file(candidate / FILE_NAME):
            return candidate / FILE_NAME
        if _declares(candidate / PYPROJECT):
            return candidate / PYPROJECT
        if (candidate / ".git").exists():
            return None
    return None


def _open_to_everybody(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise DeclarationError(path, None, "", f"cannot be read: {error.strerror}") from None


def _declares(pyproject: Path) -> bool:
    try:
        if not pyproject.is_file() or pyproject.stat().st_size > MAX_BYTES:
            return False
        text = pyproject.read_text("utf-8")
    except (OSError, ValueError):
        # Somebody else's file; whether it can be read is not ours to say.
        return False
    try:
        tools = tomllib.loads(text).get("tool")
        return isinstance(tools, dict) and "sojourn" in tools
    except (ValueError, RecursionError):
        # Where it is broken and ours is in it, passing it over would run things elsewhere than declared.
        return re.search(r"^\s*\[+\s*tool\s*\.\s*[\"']?sojourn\b", text, re.MULTILINE) is not None
