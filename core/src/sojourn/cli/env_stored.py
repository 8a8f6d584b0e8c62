"""A stored environment for the commands: found by id or name, shown to people and programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sojourn.cli.context import State
from sojourn.cli.output import block, fields, heading, print_json

if TYPE_CHECKING:
    from sojourn.models import ProbeReport
    from sojourn.records import Environment
    from sojourn.store import Store

__all__ = ["find", "present", "probe_document", "show_probe"]


async def find(state: State, name: str, *, store: Store | None = None, ensure: bool = False) -> Environment:
    """Return an environment of the tenant by id or name. ``local`` is always there: as a draft, or stored with ``ensure``.

    Raises:
        EnvironmentRunError: ``environment_not_found``.
    """
    if store is None:
        async with state.open_store() as opened:
            return await find(state, name, store=opened, ensure=ensure)
    from sojourn.errors import EnvironmentRunError, ErrorCode
    from sojourn.store import environments

    found = await store.read(environments.get, name)
    if found is None or found.tenant != state.tenant:
        found = await store.read(environments.find, state.tenant, name)
    if found is None and name == environments.LOCAL:
        if ensure:
            return await store.run(environments.ensure_local, state.tenant)
        return await store.read(environments.draft_local, state.tenant)
    if found is None:
        there = await store.read(environments.list_all, state.tenant, include_archived=True)
        known = ", ".join(environment.name for environment in there) or "none yet"
        message = f"no environment {name!r}. There are: {known}"
        raise EnvironmentRunError(ErrorCode.ENVIRONMENT_NOT_FOUND, message, phase="resolve")
    return found


def present(state: State, found: Environment, **more: Any) -> None:
    """Show an environment; ``more`` is for programs alone."""
    from sojourn.cli import documents

    # One without an id is not stored yet: the tenant's local one.
    plain = {**documents.environment(found), "id": found.id or None}
    if state.json:
        print_json({"environment": plain, **more})
        return
    names = ("name", "id", "tenant", "status", "driver", "policy", "max_leases", "require_probe", "description")
    fields({name.replace("_", " "): getattr(found, name) for name in names})
    for name in ("config", "env", "timeouts"):
        if plain[name]:
            heading(name.capitalize())
            block(json.dumps(plain[name], indent=2, ensure_ascii=False))


def probe_document(report: ProbeReport, *, driver: str, environment: str | None) -> dict[str, Any]:
    """Return what a probe found."""
    return {
        "environment": environment,
        "driver": driver,
        "ok": report.ok,
        "summary": report.summary,
        "diagnostics": [{"level": d.level, "message": d.message, "hint": d.hint} for d in report.diagnostics],
        "details": dict(report.details),
    }


def show_probe(found: dict[str, Any]) -> None:
    """Show what a probe found, with what to do next."""
    fields(
        {
            "environment": found["environment"],
            "driver": found["driver"],
            "usable": found["ok"],
            "found": found["summary"],
        }
    )
    if found["diagnostics"]:
        heading("Findings")
        for diagnostic in found["diagnostics"]:
            hint = f" → {diagnostic['hint']}" if diagnostic["hint"] else ""
            block(f"{diagnostic['level']}: {diagnostic['message']}{hint}")
    if found["details"]:
        heading("Details")
        block(json.dumps(found["details"], indent=2, ensure_ascii=False))
