"""The drivers of one orchestrator: loaded when they are first asked for, dispatched to one at a time, answers checked."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import attrs
import pluggy

from sojourn import models, wire
from sojourn.discovery import BrokenDriver, Candidate, LoadedDriver, find_candidates, load_candidate, load_instance
from sojourn.errors import DriverBug, DriverError, EnvironmentRunError, ErrorCode, InvalidConfig, Unsupported
from sojourn.guard import Guard
from sojourn.hooks import PROJECT, DriverSpec
from sojourn.settings import Settings

__all__ = ["BrokenDriver", "Driver", "DriverRegistry", "LoadedDriver"]

T = TypeVar("T")

MAX_HANDLE_BYTES = 16 * 1024
MAX_METADATA_BYTES = 64 * 1024


class DriverRegistry:
    """Which drivers there are, and the one door to each.

    Args:
        given: driver objects of the host application, by name; they come before installed ones.
        settings: deadlines of the guard.
    """

    def __init__(self, given: Mapping[str, Any] | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(DriverSpec)
        self._given = dict(given or {})
        self._candidates: dict[str, Candidate] = find_candidates()
        self._found: dict[str, Driver | BrokenDriver] = {}

    def names(self) -> list[str]:
        """Return the names of all drivers, the broken ones included; nothing is imported."""
        return sorted({*self._candidates, *self._given})

    def listing(self) -> list[LoadedDriver | BrokenDriver]:
        """Load every driver and return what it is, or why it is broken."""
        found = [self._load(name) for name in self.names()]
        return [entry.loaded if isinstance(entry, Driver) else entry for entry in found]

    def get(self, name: str) -> Driver:
        """Return the driver called ``name``.

        Raises:
            EnvironmentRunError: ``driver_unavailable``, naming what is installed and what to install.
        """
        if name not in self._candidates and name not in self._given:
            installed = ", ".join(self.names()) or "none"
            package = f"sojourn-{name.replace('_', '-')}"
            hint = f"Installed are: {installed}. Install the package that provides it, e.g. pip install {package}"
            raise _unavailable(name, f"no driver named {name!r}. {hint}")
        found = self._load(name)
        if isinstance(found, BrokenDriver):
            hint = "`sojourn drivers` lists what is usable"
            raise _unavailable(name, f"driver {name!r} of {found.distribution} is broken: {found.reason}. {hint}")
        return found

    async def close(self) -> None:
        """Let every loaded driver drop its connections."""
        for found in self._found.values():
            if isinstance(found, Driver):
                await found.close()

    def _load(self, name: str) -> Driver | BrokenDriver:
        if name not in self._found:
            loaded = (
                load_instance(name, self._given[name])
                if name in self._given
                else load_candidate(self._candidates[name])
            )
            self._found[name] = self._register(loaded) if isinstance(loaded, LoadedDriver) else loaded
        return self._found[name]

    def _register(self, loaded: LoadedDriver) -> Driver | BrokenDriver:
        try:
            self._manager.register(loaded.implementation, name=loaded.name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            reason = f"cannot be registered: {error}"
            return BrokenDriver(name=loaded.name, distribution=loaded.distribution, reason=reason)
        return Driver(loaded, self._manager, self._settings)


def _unavailable(name: str, message: str) -> EnvironmentRunError:
    return EnvironmentRunError(ErrorCode.DRIVER_UNAVAILABLE, message, driver=name)


class Driver:
    """One loaded driver: its hooks as typed methods, each behind the guard, each answer checked at the border."""

    def __init__(self, loaded: LoadedDriver, manager: pluggy.PluginManager, settings: Settings) -> None:
        self.loaded = loaded
        self.info = loaded.info
        self.name = loaded.name
        self.guard = Guard(loaded.name, abandon_after_seconds=settings.abandon_after_seconds)
        self._manager = manager
        self._callers: dict[tuple[str, int], pluggy.HookCaller] = {}

    def has(self, hook: str) -> bool:
        """Whether the driver implements ``hook``."""
        return self.loaded.has(hook)

    def require(self, hook: str) -> None:
        """Raise `Unsupported` unless the driver implements ``hook``."""
        if not self.has(hook):
            raise Unsupported(f"driver {self.name} does not offer {hook}")

    def load_config(self, data: Any, path: str, *, version: int | None = None, lenient: bool = False) -> Any:
        """Build the driver's config object from stored or written JSON; its secrets stay references.

        Args:
            data: plain JSON.
            path: what ``data`` is called in errors.
            version: the config version it was stored with; None is the current one.
            lenient: ignore unknown keys (a release has to work with what an older version stored).

        Raises:
            InvalidConfig: naming path and reason.
        """
        if version is not None and version != self.info.config_version:
            data = self._upgraded(version, data, path)
        try:
            return wire.load(self.info.config_class, data, path=path, unknown="ignore" if lenient else "refuse")
        except wire.WireError as error:
            raise InvalidConfig(error.path, error.reason) from None

    def _upgraded(self, version: int, data: Any, path: str) -> Any:
        if version > self.info.config_version or not self.has("upgrade_config"):
            reason = f"was stored with config version {version}; driver {self.name} has {self.info.config_version}"
            raise InvalidConfig(path, reason)
        try:
            return self._caller("upgrade_config")(from_version=version, data=data)
        except (DriverError, KeyboardInterrupt):
            raise
        except BaseException as error:
            # Only its type: the text may repeat what stands in the config.
            raise DriverBug(f"driver {self.name}: upgrade_config raised {type(error).__name__}") from error

    # -- hooks --------------------------------------------------------------------------------------------------------

    async def probe(self, request: models.ProbeRequest) -> models.ProbeReport:
        """Call ``probe``; without one, say that nothing but the config was checked."""
        if not self.has("probe"):
            return models.ProbeReport(ok=True, summary="the config parses; nothing else was checked")
        return await self._checked("probe", models.ProbeReport, request)

    async def acquire(self, request: models.AcquireRequest) -> models.AcquireResult:
        """Call ``acquire``."""
        return self._sized(await self._checked("acquire", models.AcquireResult, request))

    async def resume(self, request: models.ResumeRequest) -> models.AcquireResult:
        """Call ``resume``."""
        self.require("resume")
        return self._sized(await self._checked("resume", models.AcquireResult, request))

    async def realize(self, request: models.RealizeRequest) -> models.RealizeResult:
        """Call ``realize``. What is done for a driver without one is in `sojourn.realization`."""
        self.require("realize")
        return await self._checked("realize", models.RealizeResult, request)

    async def release(self, request: models.ReleaseRequest) -> models.ReleaseReceipt:
        """Call ``release``."""
        receipt = await self._checked("release", models.ReleaseReceipt, request)
        self._check_size("release", "handle", receipt.handle, MAX_HANDLE_BYTES)
        return receipt

    async def execute(self, request: models.ExecuteRequest, io: Any) -> models.CommandOutcome:
        """Call ``execute``. It has no deadline here: the command's own is enforced inside the environment."""
        outcome = await self._checked("execute", models.CommandOutcome, request, deadline=False, io=io)
        problem = _outcome_problem(outcome)
        if problem:
            raise DriverBug(f"driver {self.name}: execute returned {problem}")
        return outcome

    async def inventory(self, request: models.InventoryRequest) -> list[models.InventoryItem]:
        """Call ``inventory``."""
        self.require("inventory")
        return await self._checked("inventory", list[models.InventoryItem], request)

    async def connection(self, request: models.ConnectionRequest) -> models.ConnectionInfo:
        """Call ``connection``."""
        self.require("connection")
        return await self._checked("connection", models.ConnectionInfo, request)

    def target(self, request: models.TargetRequest) -> models.Target:
        """Call ``target``: pure, so directly; the answer is checked like any other."""
        try:
            answer = self._caller("target")(request=request)
        except (DriverError, KeyboardInterrupt):
            raise
        except BaseException as error:
            # It runs in the caller's task: a SystemExit would end the host's event loop.
            raise DriverBug(f"driver {self.name}: target raised {type(error).__name__}: {error}") from error
        if not isinstance(answer, models.Target):
            raise DriverBug(f"driver {self.name}: target returned {type(answer).__name__}")
        checked: models.Target = self._round_trip("target", models.Target, answer)
        return checked

    async def close(self) -> None:
        """Call ``close``, if there is one; a failure is the driver's own affair."""
        if self.has("close"):
            try:
                await self.guard.call(
                    "close", self._caller("close"), asynchronous=self.loaded.is_async("close"), timeout_seconds=10.0
                )
            except DriverError as error:
                self.guard.note("close", error)
        self.guard.close()

    # -- dispatch -----------------------------------------------------------------------------------------------------

    def _caller(self, hook: str) -> pluggy.HookCaller:
        """Return the caller that leaves every other driver out. Made anew when another driver was registered since:
        a subset caller calls whatever is registered after it was made."""
        plugins = self._manager.get_plugins()
        key = (hook, len(plugins))
        if key not in self._callers:
            others = [plugin for plugin in plugins if plugin is not self.loaded.implementation]
            self._callers[key] = self._manager.subset_hook_caller(hook, others)
        return self._callers[key]

    async def _call(self, hook: str, request: models.HookRequest, *, deadline: bool = True, **live: Any) -> Any:
        asynchronous = self.loaded.is_async(hook)
        if not asynchronous and "io" in live:
            live["io"] = live["io"].blocking(asyncio.get_running_loop())
        caller = self._caller(hook)
        return await self.guard.call(
            hook,
            lambda: caller(request=request, **live),
            asynchronous=asynchronous,
            timeout_seconds=request.timeout_seconds if deadline else None,
        )

    async def _checked(
        self, hook: str, expected: type[T], request: models.HookRequest, *, deadline: bool = True, **live: Any
    ) -> T:
        answer = await self._call(hook, request, deadline=deadline, **live)
        if inspect.isawaitable(answer):
            cast("Any", answer).close()
            raise DriverBug(f"driver {self.name}: {hook} returned an awaitable from a plain def; make it an async def")
        kind: type[Any] = expected if attrs.has(expected) else list
        if not isinstance(answer, kind):
            raise DriverBug(f"driver {self.name}: {hook} returned {type(answer).__name__}, not {kind.__name__}")
        checked: T = self._round_trip(hook, expected, answer)
        return checked

    def _round_trip(self, hook: str, expected: Any, answer: Any) -> Any:
        """Return the answer as it would arrive over a wire, so that only what can be stored comes through."""
        try:
            return wire.load(expected, wire.dump(answer), unknown="ignore")
        except (wire.WireError, RecursionError) as error:
            raise DriverBug(
                f"driver {self.name}: {hook} returned a {type(answer).__name__} that is not valid: {error}"
            ) from None

    def _sized(self, result: models.AcquireResult) -> models.AcquireResult:
        self._check_size("acquire", "handle", result.handle, MAX_HANDLE_BYTES)
        self._check_size("acquire", "metadata", result.metadata, MAX_METADATA_BYTES)
        return result

    def _check_size(self, hook: str, what: str, data: Any, limit: int) -> None:
        if data is not None and len(wire.plain_json_bytes(data)) > limit:
            raise DriverBug(f"driver {self.name}: {hook} returned a {what} of more than {limit} bytes")


def _outcome_problem(outcome: models.CommandOutcome) -> str | None:
    """Say what is impossible about an outcome; an exit status that is missing must never pass for success."""
    coded = outcome.outcome in (models.Outcome.EXITED, models.Outcome.SIGNALED)
    if coded and outcome.exit_code is None:
        return f"outcome {outcome.outcome} without an exit code"
    if not coded and outcome.exit_code is not None:
        return f"outcome {outcome.outcome} with exit code {outcome.exit_code}"
    if outcome.exit_code is not None and not 0 <= outcome.exit_code <= 0xFFFFFFFF:
        return f"exit code {outcome.exit_code}"
    return None
