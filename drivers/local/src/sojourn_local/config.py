"""The configuration of a local environment.

Every field has a default: the local environment needs no set-up.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from sojourn import state_dir

__all__ = ["LocalConfig"]

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_GRACE_SECONDS = 60.0


def _check_root(_: object, __: object, root: str | None) -> None:
    if root is not None and (not root.startswith("/") or "\0" in root):
        raise ValueError("must be an absolute path without NUL")


def _check_pass_env(_: object, __: object, names: tuple[str, ...]) -> None:
    for name in names:
        if not _ENV_NAME.fullmatch(name):
            # NAME=value would be a typical slip, and the value a secret: it is not repeated.
            raise ValueError("must hold names of environment variables ([A-Za-z_][A-Za-z0-9_]*), without values")


def _check_path(_: object, __: object, path: str | None) -> None:
    if path is not None and (not path or "\0" in path):
        raise ValueError("must be a search path like /usr/local/bin:/usr/bin:/bin")


def _check_grace(_: object, __: object, seconds: float) -> None:
    if not 0 <= seconds <= _MAX_GRACE_SECONDS:
        raise ValueError(f"is not in 0…{_MAX_GRACE_SECONDS:g} seconds")


@attrs.frozen(kw_only=True)
class LocalConfig:
    """How commands run on this machine."""

    root: str | None = attrs.field(
        default=None,
        validator=_check_root,
        metadata={
            "help": "Directory that holds the leases' own directories; default: local/ in the user's state directory."
        },
    )
    pass_env: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_pass_env,
        metadata={
            "help": "Names of variables of this machine that commands see besides PATH, HOME, USER, SHELL, LANG, TZ."
        },
    )
    path: str | None = attrs.field(
        default=None,
        validator=_check_path,
        metadata={"help": "PATH of the commands; default: the PATH of this process."},
    )
    release_grace_seconds: float = attrs.field(
        default=1.0,
        validator=_check_grace,
        metadata={
            "help": "Seconds between TERM and KILL for what still runs when a lease is released or its holder died."
        },
    )
    allow_unsafe_root: bool = attrs.field(
        default=False,
        metadata={
            "help": "Accept a root that others can write to, and / or the home directory as a workspace in place."
        },
    )

    def root_path(self) -> Path:
        """Return where the leases' directories are; it need not exist yet."""
        return Path(self.root) if self.root is not None else state_dir() / "local"
