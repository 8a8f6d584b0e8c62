"""The environment variables and the user of a command: a clean base, then what the request asks for.

Nothing of the orchestrator's own environment reaches a command unless its name is on the list.
"""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING

import attrs

from sojourn import InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn_local.config import LocalConfig

__all__ = ["RESOURCE_DIRECTORY", "RESOURCE_ID", "User", "base_env", "command_env", "encoded", "find_user"]

RESOURCE_ID = "SOJOURN_RESOURCE_ID"
RESOURCE_DIRECTORY = "SOJOURN_RESOURCE_DIR"
"""Names one resource on this machine, as ids of different installations or roots might be equal."""

_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@attrs.frozen
class User:
    """Another user to run as."""

    name: str
    uid: int
    gid: int
    groups: list[int]
    home: str
    shell: str

    def variables(self) -> dict[str, str]:
        """Return what a login of this user would set."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def encoded(text: str, what: str) -> bytes:
    """Return ``text`` as the operating system takes it.

    Raises:
        InvalidArgument: it holds NUL or cannot be encoded; it may be secret and is not repeated.
    """
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidArgument(f"{what} holds characters that this system cannot encode") from None
    if b"\0" in data:
        raise InvalidArgument(f"{what} holds NUL")
    return data


def find_user(name: str) -> User | None:
    """Look up the user to switch to; None when it is the one that we are.

    Raises:
        InvalidArgument: there is no such user.
        PermissionDenied: we are not root, so there is no switching.
    """
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError, ValueError) as error:
        raise InvalidArgument(f"there is no user {name!r} on this machine") from error
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise PermissionDenied(f"running as {name!r} needs root; leave the user out or name the current one")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh")


def base_env(config: LocalConfig, host: Mapping[str, str]) -> dict[str, str]:
    """Return what every command gets of the host's environment."""
    wanted = {*_PASSED, *config.pass_env}
    env = {name: value for name, value in host.items() if name in wanted or name.startswith("LC_")}
    if config.path is not None:
        env["PATH"] = config.path
    return env


def command_env(
    config: LocalConfig, directory: str, resource_id: str, extra: Mapping[str, str], user: User | None
) -> dict[bytes, bytes]:
    """Return the whole environment of one command.

    Args:
        config: names further host variables.
        directory: the resource's own directory.
        resource_id: shown to the command.
        extra: the request's variables; they go on top.
        user: the other user that it runs as, if any.

    Raises:
        InvalidArgument: a name is not a name, or a value holds NUL. The value is not repeated.
    """
    env = base_env(config, os.environ)
    if user is None:
        env["TMPDIR"] = os.path.join(directory, "tmp")
    else:
        # The resource's directory is closed to other users, so its tmp is of no use to them.
        env.update(user.variables())
    for name, value in extra.items():
        if not _NAME.fullmatch(name):
            raise InvalidArgument("the name of an environment variable does not match [A-Za-z_][A-Za-z0-9_]*")
        env[name] = value
    env[RESOURCE_ID] = resource_id
    env[RESOURCE_DIRECTORY] = directory
    return {name.encode(): encoded(value, f"the value of environment variable {name}") for name, value in env.items()}
