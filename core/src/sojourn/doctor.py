"""Look at this installation: Python, drivers, store, git, and each driver's own needs, each with what to do next."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

import sojourn
from sojourn import doctor_store, probing
from sojourn.drivers import BrokenDriver, DriverRegistry, LoadedDriver
from sojourn.errors import EnvironmentRunError, SojournError, StoreError
from sojourn.findings import Finding, Health, Level
from sojourn.models import Actor, ProbeReport
from sojourn.plugins import Plugins
from sojourn.records import Environment
from sojourn.resolvers import SecretResolver
from sojourn.runtime import Runtime
from sojourn.settings import Settings
from sojourn.store import Store, environments

__all__ = ["Finding", "Health", "examine", "examine_installation"]

GIT_SECONDS = 10.0
SLOW_LOAD_SECONDS = 1.0
OPERATOR = Actor(type="operator")


async def examine(runtime: Runtime) -> Health:
    """Look at everything from inside an open orchestrator; changes nothing."""
    findings = [_python(), _sojourn(), await _git()]
    findings += [_driver(entry) for entry in runtime.drivers.listing()]
    findings += await doctor_store.examine(runtime.store)
    findings += await _probes(runtime, await runtime.store.read(environments.list_all, runtime.tenant))
    return Health(findings=tuple(findings))


async def examine_installation(
    url: str | os.PathLike[str] | None = None, *, tenant: str = "default", settings: Settings | None = None
) -> Health:
    """Look at everything, also when the store cannot be opened: then that is a finding. Nothing is made or changed.

    Args:
        url: of the store, as for `Orchestrator.open`.
        tenant: whose environments are probed.
        settings: deadlines of the probes.
    """
    settings = settings or Settings()
    findings = [_python(), _sojourn(), await _git()]
    drivers = DriverRegistry(None, settings)
    findings += [_driver(entry) for entry in drivers.listing()]
    plugins, problem = _plugins()
    findings += [problem] if problem else []
    store, told = await doctor_store.open_to_look(url)
    findings += told
    try:
        stored: list[Environment] = []
        if store is not None:
            found, stored = await _look(store, tenant)
            findings += found
        if plugins is not None:
            findings += await _probe_all(store, drivers, plugins, settings, tenant, stored)
    finally:
        await drivers.close()
        if store is not None:
            await store.close()
    return Health(findings=tuple(findings))


async def _look(store: Store, tenant: str) -> tuple[list[Finding], list[Environment]]:
    """A damaged database may open and still not answer."""
    findings: list[Finding] = []
    try:
        findings += await doctor_store.examine(store)
        return findings, await store.read(environments.list_all, tenant)
    except StoreError as error:
        return [*findings, doctor_store.trouble(error)], []


async def _probe_all(
    store: Store | None,
    drivers: DriverRegistry,
    plugins: Plugins,
    settings: Settings,
    tenant: str,
    stored: list[Environment],
) -> list[Finding]:
    try:
        async with _any_store(store) as used:
            runtime = Runtime(
                store=used,
                drivers=drivers,
                plugins=plugins,
                secrets=SecretResolver(plugins, ()),
                settings=settings,
                tenant=tenant,
                holder_id="doctor",
            )
            return await _probes(runtime, stored)
    except (OSError, StoreError) as error:
        hint = "free some space in the folder for temporary files, or set TMPDIR"
        return [Finding(subject="drivers", level="warning", message=f"could not be probed: {error}", hint=hint)]


@asynccontextmanager
async def _any_store(store: Store | None) -> AsyncIterator[Store]:
    """A probe needs no more of the store than an installation id: without the real one a passing one does."""
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="sojourn-doctor-") as folder:
        passing = await Store.open(Path(folder) / "sojourn.db")
        try:
            yield passing
        finally:
            await passing.close()


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
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), GIT_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
    except (OSError, TimeoutError) as error:
        problem = f"{path} does not run: {str(error) or 'it does not answer'}"
        return Finding(subject="git", level="warning", message=problem, hint="reinstall git")
    if process.returncode:
        problem = f"{path} --version exits with {process.returncode}"
        return Finding(subject="git", level="warning", message=problem, hint="reinstall git")
    return Finding(subject="git", level="ok", message=f"{out.decode('utf-8', 'replace').strip()} ({path})")


def _plugins() -> tuple[Plugins | None, Finding | None]:
    try:
        return Plugins(), None
    except SojournError as error:
        hint = "no command that opens an orchestrator works until then; drivers were not probed"
        return None, Finding(subject="plugins", level="error", message=str(error), hint=hint)


def _driver(entry: LoadedDriver | BrokenDriver) -> Finding:
    subject = f"driver {entry.name}"
    if isinstance(entry, BrokenDriver):
        repair = f"reinstall or uninstall {entry.distribution}; the other drivers work without it"
        return Finding(subject=subject, level="error", message=entry.reason, hint=repair)
    slow = entry.load_seconds > SLOW_LOAD_SECONDS
    message = f"{entry.info.version} of {entry.distribution}"
    if slow:
        message += f", but took {entry.load_seconds:.1f} s to load"
    hint = "its module imports too much; tell its author" if slow else None
    return Finding(subject=subject, level="warning" if slow else "ok", message=message, hint=hint)


# -- probes -----------------------------------------------------------------------------------------------------------


async def _probes(runtime: Runtime, stored: Iterable[Environment]) -> list[Finding]:
    """Probe each environment, and each driver that none of them uses."""
    known = list(stored)
    unused = set(runtime.drivers.names()) - {environment.driver for environment in known}
    work = [_probe_driver(runtime, driver) for driver in sorted(unused)]
    work += [_probe_environment(runtime, environment) for environment in known]
    return [finding for findings in await asyncio.gather(*work) for finding in findings]


async def _probe_environment(runtime: Runtime, environment: Environment) -> list[Finding]:
    subject = f"environment {environment.name}"
    try:
        # Looking is not worth a record.
        report = await probing.probe(runtime, environment, OPERATOR, recorded=False)
    except EnvironmentRunError as error:
        hint = f"make its driver usable, or `sojourn env archive {environment.name}`"
        return [Finding(subject=subject, level="error", message=error.message, hint=hint)]
    return _probed(subject, report)


async def _probe_driver(runtime: Runtime, driver: str) -> list[Finding]:
    """Probe a driver that no environment uses, if it needs no config."""
    try:
        config_class = runtime.drivers.get(driver).info.config_class
    except EnvironmentRunError:
        return []  # said among the drivers
    if any(field.init and field.default is attrs.NOTHING for field in attrs.fields(config_class)):
        return []
    return _probed(f"driver {driver}", await probing.probe_draft(runtime, driver, driver, {}, OPERATOR))


def _probed(subject: str, report: ProbeReport) -> list[Finding]:
    findings = [Finding(subject=subject, level="ok" if report.ok else "error", message=report.summary)]
    levels: dict[str, Level] = {"info": "ok", "warning": "warning", "error": "error"}
    for diagnostic in report.diagnostics:
        level = levels[diagnostic.level]
        findings.append(Finding(subject=subject, level=level, message=diagnostic.message, hint=diagnostic.hint))
    return findings
