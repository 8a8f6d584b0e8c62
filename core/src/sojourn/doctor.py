"""Look at this installation: Python, drivers, store, git, and each driver's own needs, each with what to do next."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

import sojourn
from sojourn import probing
from sojourn.drivers import BrokenDriver, LoadedDriver
from sojourn.errors import EnvironmentRunError, SojournError
from sojourn.hosts import is_dead
from sojourn.models import Actor, ProbeReport
from sojourn.records import LeaseStatus
from sojourn.runtime import Runtime
from sojourn.store import clock, holders, leases

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from sojourn.orchestrator import Orchestrator

__all__ = ["Finding", "Health", "examine"]

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
        """Whether nothing is broken; warnings count as well."""
        return all(finding.level != "error" for finding in self.findings)


async def examine(orchestrator: Orchestrator, runtime: Runtime) -> Health:
    """Look at everything; a probe of each stored environment and a default probe of each driver are part of it."""
    findings = [_python(), _sojourn(), await _git()]
    findings += [_driver(entry) for entry in runtime.drivers.listing()]
    findings += await _store(runtime)
    findings += await _leases(runtime)
    findings += await _environments(orchestrator, runtime)
    return Health(findings=tuple(findings))


def _python() -> Finding:
    version = platform.python_version()
    details = {"version": version, "executable": sys.executable, "platform": platform.platform()}
    if sys.platform != "linux":
        hint = "run sojourn on Linux to use driver local"
        return Finding(
            subject="python", level="warning", message=f"{version} on {sys.platform}", hint=hint, details=details
        )
    return Finding(subject="python", level="ok", message=f"{version} ({sys.executable})", details=details)


def _sojourn() -> Finding:
    where = str(Path(sojourn.__file__).parent)
    return Finding(subject="sojourn", level="ok", message=f"{sojourn.__version__} ({where})", details={"path": where})


async def _git() -> Finding:
    path = await asyncio.to_thread(shutil.which, "git")
    if path is None:
        hint = "install git; mode copy then knows which files to leave out, and mode git_worktree works"
        return Finding(subject="git", level="warning", message="not found in PATH", hint=hint)
    process = await asyncio.create_subprocess_exec(path, "--version", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return Finding(subject="git", level="ok", message=f"{out.decode('utf-8', 'replace').strip()} ({path})")


def _driver(entry: LoadedDriver | BrokenDriver) -> Finding:
    subject = f"driver {entry.name}"
    if isinstance(entry, BrokenDriver):
        repair = f"reinstall or uninstall {entry.distribution}; the other drivers work without it"
        return Finding(subject=subject, level="error", message=entry.reason, hint=repair)
    slow = entry.load_seconds > 1.0
    message = f"{entry.info.version} of {entry.distribution}"
    if slow:
        message += f", but took {entry.load_seconds:.1f} s to load"
    hint = "its module imports too much; tell its author" if slow else None
    return Finding(subject=subject, level="warning" if slow else "ok", message=message, hint=hint)


async def _store(runtime: Runtime) -> list[Finding]:
    store = runtime.store
    findings = []
    size = await asyncio.to_thread(_size, store.url)
    message = store.url + (f", {size / 1024:.0f} KiB" if size is not None else "")
    try:
        await store.run(_write_nothing)
        findings.append(
            Finding(subject="store", level="ok", message=message, details={"url": store.url, "bytes": size})
        )
    except SojournError as error:
        findings.append(
            Finding(subject="store", level="error", message=str(error), hint="make it writable, or use --store")
        )
    if not store.in_place:
        hint = (
            "`sojourn db adopt` if it was moved, `sojourn db adopt --new-installation` if the original is still in use"
        )
        findings.append(
            Finding(subject="store", level="warning", message="was copied or moved, so sweeps are off", hint=hint)
        )
    return findings


def _size(url: str) -> int | None:
    path = Path(url.removeprefix("sqlite:///"))
    return path.stat().st_size if path.is_file() else None


def _write_nothing(conn: Connection) -> None:
    """A writing transaction takes the write lock, and fails where nothing can be written."""
    clock.now(conn)


async def _leases(runtime: Runtime) -> list[Finding]:
    def look(conn: Connection) -> list[Finding]:
        dead = {holder.id: holder for holder in holders.list_all(conn) if is_dead(holder)}
        left = [lease for holder in dead for lease in leases.held_by(conn, holder)]
        waiting = leases.list_all(conn, status=LeaseStatus.PENDING_CLEANUP)
        active = leases.list_all(conn, status=LeaseStatus.ACTIVE)
        findings = [
            Finding(
                subject="leases",
                level="ok",
                message=f"{len(active)} active, {len(waiting)} waiting for clean-up, {len(holders.list_all(conn))} holders",
                details={"active": len(active), "pending_cleanup": len(waiting)},
            )
        ]
        for lease in left:
            pid = dead[lease.holder_id or ""].pid
            message = (
                f"{lease.id} in {lease.environment_name} was left {lease.status} by a process that is gone (pid {pid})"
            )
            findings.append(Finding(subject="lease", level="warning", message=message, hint="run `sojourn reap`"))
        for lease in waiting:
            message = f"{lease.id} in {lease.environment_name} is not proven gone after {lease.attempts} attempt(s)"
            message += f": {lease.last_error}" if lease.last_error else ""
            next_step = f"run `sojourn reap --force`, or `sojourn lease release {lease.id}`"
            findings.append(Finding(subject="lease", level="warning", message=message, hint=next_step))
        return findings

    return await runtime.store.read(look)


async def _environments(orchestrator: Orchestrator, runtime: Runtime) -> list[Finding]:
    findings = []
    stored = await orchestrator.environments.list()
    for driver in sorted({"local", *runtime.drivers.names()} - {environment.driver for environment in stored}):
        findings += await _probe_driver(orchestrator, driver)
    for environment in stored:
        subject = f"environment {environment.name}"
        try:
            # Looking is not worth a record.
            report = await probing.probe(runtime, environment, Actor(type="operator"), recorded=False)
        except EnvironmentRunError as error:
            findings.append(Finding(subject=subject, level="error", message=error.message))
            continue
        findings += _probed(subject, report)
    return findings


async def _probe_driver(orchestrator: Orchestrator, driver: str) -> list[Finding]:
    """Probe a driver that no environment uses, if it needs no config."""
    try:
        config_class = orchestrator.drivers.get(driver).info.config_class
    except EnvironmentRunError:
        return []  # said among the drivers
    if any(field.init and field.default is attrs.NOTHING for field in attrs.fields(config_class)):
        return []
    return _probed(f"driver {driver}", await orchestrator.probe_draft(driver, {}))


def _probed(subject: str, report: ProbeReport) -> list[Finding]:
    findings = [Finding(subject=subject, level="ok" if report.ok else "error", message=report.summary)]
    levels: dict[str, Level] = {"info": "ok", "warning": "warning", "error": "error"}
    for diagnostic in report.diagnostics:
        level = levels[diagnostic.level]
        findings.append(Finding(subject=subject, level=level, message=diagnostic.message, hint=diagnostic.hint))
    return findings
