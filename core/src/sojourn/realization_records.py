"""What a run asked of its workspace and what became of it.

Stored with the lease and the execution workspace, and read back tolerantly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from sojourn import wire
from sojourn.models import Transfer

__all__ = [
    "Overlay",
    "ProvisionRecord",
    "RealizationRecord",
    "RealizationRequest",
    "Workspace",
    "read_record",
    "read_request",
]

T = TypeVar("T")

VERSION = 1
Kind: TypeAlias = Literal["project_primary", "task_session", "agent_home"]
Strategy: TypeAlias = Literal["project_primary", "git_worktree"]


@attrs.frozen(kw_only=True)
class Workspace:
    """The caller's source tree for a run.

    Args:
        local_path: the tree on this machine; None when the run brings none.
        kind: whose tree it is.
        project_id: the host application's project.
        repo_url: where the tree comes from, without credentials.
        repo_ref: the commit, tag or branch it is at.
        strategy: use the tree as it is, or a git worktree of it made for the run.
        branch: of the git worktree; None makes ``sojourn/<resource id>``.
        worktree_path: where the git worktree is, once it was made.
        exclude: what stays behind when the tree is copied, in the syntax of ``.gitignore``.
        additional: further trees, read-only for the run.
    """

    local_path: str | None = None
    kind: Kind = "project_primary"
    project_id: str | None = None
    repo_url: str | None = None
    repo_ref: str | None = None
    strategy: Strategy = "project_primary"
    branch: str | None = None
    worktree_path: str | None = None
    exclude: tuple[str, ...] = ()
    additional: tuple[Workspace, ...] = ()


@attrs.frozen(kw_only=True)
class Overlay:
    """Commands around the run, in the realized workspace, by a login shell.

    Args:
        provision: set-up, before the first command.
        teardown: before the lease is released.
        cleanup: after teardown, before the lease is released.
        provision_in_place: run ``provision`` also in the caller's own tree on this machine (``local`` with ``in_place``).
    """

    provision: str | None = None
    teardown: str | None = None
    cleanup: str | None = None
    provision_in_place: bool = False


@attrs.frozen(kw_only=True)
class RealizationRequest:
    """What was asked; built by the core. ``requested_mode`` is the persisted execution workspace's mode, else the call's."""

    version: int = VERSION
    adapter: str
    tenant: str
    environment_id: str
    execution_workspace_id: str | None
    issue_id: str | None
    run_id: str | None
    requested_mode: str | None
    transfer: Transfer
    source: Workspace
    overlay: Overlay


@attrs.frozen(kw_only=True)
class ProvisionRecord:
    """What became of the provision command: ``ran`` is False where it was skipped, and ``reason`` says why."""

    ran: bool
    reason: str | None = None
    fingerprint: str | None = None
    exit_code: int | None = None
    duration_seconds: float | None = None
    output_tail: str | None = None


@attrs.frozen(kw_only=True)
class RealizationRecord:
    """Where the workspace is now; built by the core, not by the driver.

    Args:
        mode: how it got there.
        authoritative_root: the tree that counts; in place it is the caller's own.
        path_aliases: the same root as seen from elsewhere: local path → path in the environment.
        local: the caller's side: ``path``, ``strategy``, ``branch``, ``worktree``.
        remote: the environment's side: ``cwd``, ``transport``; None when it is the caller's own tree.
        bootstrap: the provision command's fate; None where there was none.
        rebuild: how the tree can be made again (``transfer``, ``repo_url``, ``repo_ref``).
        summary: one sentence for people.
    """

    version: int = VERSION
    mode: Transfer
    authoritative_root: str
    path_aliases: Mapping[str, str]
    local: Mapping[str, str | None]
    remote: Mapping[str, str | None] | None
    bootstrap: ProvisionRecord | None
    rebuild: Mapping[str, str | None]
    summary: str


def read_request(data: Any) -> RealizationRequest | None:
    """Return a stored request, or None where it has another version or lacks essentials. Blank text counts as none."""
    return _read(RealizationRequest, data)


def read_record(data: Any) -> RealizationRecord | None:
    """Return a stored record, or None where it has another version or lacks essentials. Blank text counts as none."""
    return _read(RealizationRecord, data)


def _read(cls: type[T], data: Any) -> T | None:
    if not isinstance(data, Mapping) or data.get("version") != VERSION:
        return None
    try:
        return wire.load(cls, _without_blanks(data), unknown="ignore")
    except wire.WireError:
        return None


def _without_blanks(data: Any) -> Any:
    if isinstance(data, str):
        return data.strip() or None
    if isinstance(data, Mapping):
        return {key: _without_blanks(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_without_blanks(value) for value in data]
    return data
