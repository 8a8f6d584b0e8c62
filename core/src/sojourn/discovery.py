"""Find the drivers that are installed, and load one: alone, checked, and never at the others' cost."""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs

from sojourn.hooks import DRIVER_HOOKS, PLUGIN_HOOKS, PROJECT, PURE_HOOKS, REQUIRED_HOOKS, DriverSpec
from sojourn.models import API_VERSION, DriverInfo

__all__ = ["BrokenDriver", "Candidate", "LoadedDriver", "find_candidates", "load_candidate", "load_instance"]

DRIVER_GROUP = "sojourn.drivers"


@attrs.frozen(kw_only=True)
class Candidate:
    """An entry point of group ``sojourn.drivers``; ``rivals`` are other values that claim the same name."""

    name: str
    entry_point: EntryPoint
    distributions: tuple[str, ...]
    rivals: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class BrokenDriver:
    """A driver that was found and cannot be used; ``reason`` says why, in one sentence, for people."""

    name: str
    distribution: str
    reason: str


@attrs.frozen(kw_only=True, eq=False)
class LoadedDriver:
    """A checked driver: the object whose hooks are called, and what it says about itself."""

    name: str
    distribution: str
    info: DriverInfo
    implementation: Any
    load_seconds: float

    def has(self, hook: str) -> bool:
        """Whether the driver implements ``hook``."""
        return callable(getattr(self.implementation, hook, None))

    def is_async(self, hook: str) -> bool:
        """Whether its ``hook`` is an ``async def``."""
        return inspect.iscoroutinefunction(getattr(self.implementation, hook))


def find_candidates() -> dict[str, Candidate]:
    """Return what is installed, by name. Nothing is imported.

    The same (name, value) declared by several distributions counts once: an editable workspace and its members declare the same
    drivers. Different values for one name are kept together as rivals, so that loading can refuse them naming both.
    """
    claims: dict[str, dict[str, list[EntryPoint]]] = defaultdict(lambda: defaultdict(list))
    for entry_point in entry_points(group=DRIVER_GROUP):
        claims[entry_point.name][entry_point.value].append(entry_point)
    return {name: _candidate(name, values) for name, values in sorted(claims.items())}


def _candidate(name: str, values: dict[str, list[EntryPoint]]) -> Candidate:
    described = tuple(f"{value} ({', '.join(_distributions(points))})" for value, points in sorted(values.items()))
    first = next(iter(values.values()))
    return Candidate(
        name=name,
        entry_point=first[0],
        distributions=tuple(sorted({d for points in values.values() for d in _distributions(points)})),
        rivals=described if len(values) > 1 else (),
    )


def _distributions(points: list[EntryPoint]) -> list[str]:
    return sorted({point.dist.name if point.dist else "an unknown distribution" for point in points})


def load_candidate(candidate: Candidate) -> LoadedDriver | BrokenDriver:
    """Import, make and check one driver. Never raises for what the driver does, ``SystemExit`` included."""
    distribution = ", ".join(candidate.distributions)
    if candidate.rivals:
        reason = f"claimed by several distributions: {'; '.join(candidate.rivals)}. Uninstall all but one"
        return BrokenDriver(name=candidate.name, distribution=distribution, reason=reason)
    started = time.monotonic()
    try:
        implementation = candidate.entry_point.load()()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a driver is a guest: even SystemExit at import stays its own
        reason = f"loading {candidate.entry_point.value} failed: {_sentence(error)}"
        return BrokenDriver(name=candidate.name, distribution=distribution, reason=reason)
    return load_instance(candidate.name, implementation, distribution, time.monotonic() - started)


def load_instance(
    name: str, implementation: Any, distribution: str = "given by the host application", load_seconds: float = 0.0
) -> LoadedDriver | BrokenDriver:
    """Check a driver object that exists already; the same checks as for an installed one."""
    problem = _shape_problem(implementation)
    if problem is None:
        try:
            info = implementation.driver_info()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            problem = f"driver_info() failed: {_sentence(error)}"
        else:
            problem = _info_problem(name, info)
    if problem is not None:
        return BrokenDriver(name=name, distribution=distribution, reason=problem)
    return LoadedDriver(
        name=name, distribution=distribution, info=info, implementation=implementation, load_seconds=load_seconds
    )


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# -- the checks -------------------------------------------------------------------------------------------------------


def _shape_problem(driver: Any) -> str | None:
    """Whether the object can be registered and dispatched to; pluggy alone accepts more than is safe."""
    cls = type(driver)
    if isinstance(driver, type):
        return "the entry point gives a class that makes classes; it must name the driver's class or a factory of it"
    if any("__eq__" in vars(base) or "__hash__" in vars(base) for base in cls.__mro__[:-1]):
        return f"{cls.__name__} defines its own __eq__ or __hash__; drivers are told apart by identity"
    missing = [hook for hook in REQUIRED_HOOKS if not callable(getattr(driver, hook, None))]
    if missing:
        return f"{cls.__name__} lacks the required hook{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    for name, member in inspect.getmembers_static(cls):
        # Looked up statically: a property of the driver's must not run here.
        problem = _method_problem(cls.__name__, name, member) if inspect.isroutine(member) else None
        if problem:
            return problem
    return None


def _method_problem(cls: str, name: str, method: Any) -> str | None:
    options = getattr(method, f"{PROJECT}_impl", None)
    if options is None:
        if name in DRIVER_HOOKS:
            return f"{cls}.{name} is named like a hook but not marked with @hookimpl"
        return None
    if name in PLUGIN_HOOKS:
        return f"{cls}.{name} is a hook of plugins (group sojourn.plugins), not of drivers"
    if name not in DRIVER_HOOKS:
        return f"{cls}.{name} is marked with @hookimpl, but there is no hook of that name; hooks are {', '.join(DRIVER_HOOKS)}"
    if options.get("specname"):
        return f"{cls}.{name} uses specname; a driver's method is called like its hook"
    if options.get("wrapper") or options.get("hookwrapper"):
        return f"{cls}.{name} is a wrapper; a driver's hook is a plain implementation"
    if name in PURE_HOOKS and inspect.iscoroutinefunction(method):
        return f"{cls}.{name} is async; it must be a plain def without I/O"
    return _parameter_problem(cls, name, method)


def _parameter_problem(cls: str, name: str, method: Any) -> str | None:
    wanted = list(inspect.signature(getattr(DriverSpec, name)).parameters)
    given = inspect.signature(method).parameters.values()
    odd = [p.name for p in given if p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty]
    if odd or [p.name for p in given][1:] != wanted[1:]:
        return f"{cls}.{name}({', '.join(p.name for p in given)}) must take exactly ({', '.join(wanted)}), by position"
    return None


def _info_problem(name: str, info: Any) -> str | None:
    if not isinstance(info, DriverInfo):
        return f"driver_info() returned {type(info).__name__}, not sojourn.DriverInfo"
    if info.name != name:
        return f"driver_info().name is {info.name!r}, but the entry point is {name!r}; they must be equal"
    if str(info.api_version).split(".")[0] != API_VERSION.split(".")[0]:
        return f"written for driver api {info.api_version}; this sojourn has {API_VERSION}. Install a matching version"
    if not attrs.has(info.config_class):
        return f"config_class {info.config_class!r} is not an attrs class"
    if not info.transfers or set(info.transfers) - {"copy", "in_place"}:
        return f"transfers {info.transfers!r} must be one or both of 'copy' and 'in_place'"
    return None
