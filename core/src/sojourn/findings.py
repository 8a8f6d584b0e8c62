"""What a look at the installation finds: each thing with how bad it is and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

__all__ = ["Finding", "Health", "Level"]

Level = Literal["ok", "warning", "error"]


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: what, e.g. ``store``, ``driver local``.
        level: ``ok``; ``warning`` (works, needs attention); ``error`` (does not work).
        message: what was found.
        hint: what to do next.
        details: facts for programs.
    """

    subject: str
    level: Level
    message: str
    hint: str | None = None
    details: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Health:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is broken; a warning is not broken."""
        return all(finding.level != "error" for finding in self.findings)
