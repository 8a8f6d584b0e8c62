"""The JSON documents of the command line: stable shapes, times in ISO 8601, secrets as references."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sojourn import wire

if TYPE_CHECKING:
    from sojourn.models import ExecuteResult
    from sojourn.records import ActivityEvent, Environment, Lease
    from sojourn.resolution import LevelTrace

__all__ = ["environment", "event", "lease", "result", "trace"]

_CONTEXT = ("run_id", "agent_id", "issue_id", "execution_workspace_id", "execution_workspace_mode", "trace")


def lease(found: Lease) -> dict[str, Any]:
    """Return a lease: the fields of its row, those of its run beside them."""
    plain: dict[str, Any] = wire.dump(found)
    context = plain.pop("context")
    # `agent_id` is left out on the wire when there is none; a document always has the same keys.
    return plain | {name: context.get(name) for name in _CONTEXT}


def environment(found: Environment) -> dict[str, Any]:
    """Return an environment as stored."""
    plain: dict[str, Any] = wire.dump(found)
    return plain


def event(found: ActivityEvent) -> dict[str, Any]:
    """Return one line of the record of what happened."""
    plain: dict[str, Any] = wire.dump(found)
    return plain


def trace(levels: Iterable[LevelTrace]) -> list[dict[str, Any]]:
    """Return the levels of a resolution in their order."""
    return [{"level": at.level, "verdict": at.verdict, "value": at.value, "reason": at.reason} for at in levels]


def result(found: ExecuteResult) -> dict[str, Any]:
    """Return what became of a command, with what was kept of its output."""
    return {
        "exec_id": found.exec_id,
        "outcome": str(found.outcome),
        "exit_code": found.exit_code,
        "signal": found.signal,
        "started_at": found.started_at.isoformat(),
        "duration_seconds": found.duration.total_seconds(),
        "kill_confirmed": found.kill_confirmed,
        "detail": found.detail,
        "output": {
            **_stream("stdout", found.stdout, found.stdout_dropped_bytes),
            **_stream("stderr", found.stderr, found.stderr_dropped_bytes),
            "complete": found.output_complete,
        },
    }


def _stream(name: str, data: bytes, dropped_bytes: int) -> dict[str, Any]:
    text = data.decode("utf-8", "replace")
    exact = text.encode() == data
    # Text that had to be bent is given a second time, exactly.
    return {
        name: text,
        f"{name}_base64": None if exact else base64.b64encode(data).decode("ascii"),
        f"{name}_dropped_bytes": dropped_bytes,
    }
