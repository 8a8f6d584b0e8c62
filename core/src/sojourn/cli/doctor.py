"""``sojourn doctor``: is everything here as it should be, and if not, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.context import State, common_options, pass_state, run_async
from sojourn.cli.output import note, print_json, verdicts

if TYPE_CHECKING:
    from sojourn.findings import Finding, Health

__all__ = ["doctor"]


@click.command()
@common_options
@pass_state
def doctor(state: State, /) -> int:
    """Look at this installation and say what to do about what is wrong.

    Looks at Python, sojourn, git, every installed driver, the store (can it be written, its schema, leases that are stuck),
    and probes every environment, and every driver that no environment uses. Nothing is leased, made or changed, and what
    cannot be looked at is one line and does not hide the rest: doctor also works when the store does not.

    \b
    Examples:
      sojourn doctor
      sojourn doctor --json
      sojourn doctor --store postgresql://db.example/sojourn

    Each line is a finding: `ok`; `warning`, it works and needs attention; `error`, it does not work. Exit status: 0 nothing
    is broken (there may be warnings), 1 there is an error.
    """
    health = run_async(_examine(state))
    if state.json:
        print_json({"ok": health.ok, "findings": [_document(finding) for finding in health.findings]})
    else:
        verdicts([(one.level, one.subject, one.message, one.hint) for one in health.findings])
        note(_summary(health), quiet=state.quiet)
    return 0 if health.ok else 1


async def _examine(state: State) -> Health:
    from sojourn.doctor import examine_installation

    return await examine_installation(state.store, tenant=state.tenant)


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "level": finding.level,
        "message": finding.message,
        "hint": finding.hint,
        "details": dict(finding.details),
    }


def _summary(health: Health) -> str:
    errors = sum(finding.level == "error" for finding in health.findings)
    warnings = sum(finding.level == "warning" for finding in health.findings)
    if not errors and not warnings:
        return "all is well"
    counts = [_count(errors, "error")] * bool(errors) + [_count(warnings, "warning")] * bool(warnings)
    return ", ".join(counts) + ("" if errors else "; nothing is broken")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
