"""What a repository may declare: the classes behind ``sojourn.toml``; docs/reference/sojourn-toml.md lists every key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import and_, gt, le, optional

from sojourn.errors import SojournError
from sojourn.records import AdapterSpec, LeasePolicy
from sojourn.secrets import Secret

__all__ = [
    "Declaration",
    "DeclarationError",
    "DeclaredAdapter",
    "DeclaredDefaults",
    "DeclaredEnvironment",
    "DeclaredWorkspace",
]

LONGEST_SECONDS = 366 * 86400.0


class DeclarationError(SojournError):
    """A declaration cannot be read. ``file``, ``line`` (None where it cannot be told) and ``path`` say where."""

    def __init__(self, file: Path, line: int | None, path: str, reason: str) -> None:
        where = f"{file}:{line}" if line is not None else str(file)
        super().__init__(f"{where}: {path}: {reason}" if path else f"{where}: {reason}")
        self.file = file
        self.line = line
        self.path = path
        self.reason = reason


@attrs.frozen(kw_only=True)
class DeclaredEnvironment:
    """One ``[environments.NAME]``; the fields are those of `sojourn.Environment`.

    Args:
        driver: name of an installed driver.
        config: of the driver; secrets as references.
        env: variables for every command; a value is text or ``{secret = "env:NAME"}``.
        policy: what becomes of a place when its run is over.
        max_leases: how many places at once; without it there is no limit.
        require_probe: probe before every acquire.
        timeouts: seconds per hook, over the settings.
        description: for people.
    """

    driver: str
    config: Mapping[str, Any] = attrs.field(factory=dict)
    env: Mapping[str, str | Secret] = attrs.field(factory=dict)
    policy: LeasePolicy = LeasePolicy.EPHEMERAL
    max_leases: int | None = None
    require_probe: bool = False
    timeouts: Mapping[str, float] = attrs.field(factory=dict)
    description: str = ""


@attrs.frozen(kw_only=True)
class DeclaredAdapter:
    """One ``[adapters.TYPE]``: what a host application runs in an environment.

    Args:
        transports: that it can run over; without it any.
    """

    transports: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True)
class DeclaredDefaults:
    """``[defaults]``: what a run in this repository uses unless it says otherwise.

    Args:
        environment: the project's choice, below execution workspace and issue.
        mode: ``in_place``, ``copy`` or ``git_worktree``.
        provision: set-up command.
        teardown: command before the lease is given back.
        timeout_seconds: time limit of the command.
    """

    environment: str | None = None
    mode: Literal["in_place", "copy", "git_worktree"] | None = None
    provision: str | None = None
    teardown: str | None = None
    timeout_seconds: float | None = attrs.field(default=None, validator=optional(and_(gt(0.0), le(LONGEST_SECONDS))))


@attrs.frozen(kw_only=True)
class DeclaredWorkspace:
    """``[workspace]``: how the tree is taken along.

    Args:
        exclude: what stays behind when the tree is copied, in the syntax of ``.gitignore``.
    """

    exclude: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Declaration:
    """What a repository declares.

    Args:
        defaults: what a run uses unless it says otherwise.
        environments: by name.
        adapters: by type.
        workspace: how the tree is taken along.
    """

    defaults: DeclaredDefaults = attrs.field(factory=DeclaredDefaults)
    environments: Mapping[str, DeclaredEnvironment] = attrs.field(factory=dict)
    adapters: Mapping[str, DeclaredAdapter] = attrs.field(factory=dict)
    workspace: DeclaredWorkspace = attrs.field(factory=DeclaredWorkspace)

    def adapter_specs(self) -> list[AdapterSpec]:
        """Return the declared adapters as an orchestrator takes them."""
        return [
            AdapterSpec(type=name, transports=None if a.transports is None else frozenset(a.transports))
            for name, a in self.adapters.items()
        ]
