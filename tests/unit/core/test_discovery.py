"""Finding and loading drivers: one that is broken says why, and the others work."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn import discovery
from sojourn.discovery import BrokenDriver, LoadedDriver, find_candidates, load_candidate, load_instance
from sojourn.drivers import DriverRegistry
from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.hooks import hookimpl
from sojourn.models import DriverInfo
from sojourn.testing import FakeConfig, FakeDriver


@attrs.frozen
class Dist:
    name: str


def point(name: str, value: str, distribution: str = "dist-a") -> EntryPoint:
    return EntryPoint(name, value, discovery.DRIVER_GROUP)._for(Dist(distribution))  # type: ignore[attr-defined]


@pytest.fixture
def install(monkeypatch: Any, tmp_path: Path) -> Any:
    """Pretend that these entry points are installed; ``modules`` are written for them."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(*points: EntryPoint, **modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(discovery, "entry_points", lambda group: points)

    return install


GOOD = "from sojourn.testing import FakeDriver as Driver"


# -- entry points -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import a_library_that_is_not_there", "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise BaseException('odd')", "BaseException: odd"),
        ("x = ", "SyntaxError"),
        ("", "AttributeError"),
        ("class Driver:\n    def __init__(self): raise ValueError('no licence')", "ValueError: no licence"),
        ("class Driver:\n    def __init__(self, needed): pass", "TypeError"),
    ],
)
def test_a_driver_that_cannot_be_loaded_is_broken_and_the_others_work(install: Any, module: str, reason: str) -> None:
    install(point("bad", "bad_driver:Driver"), point("fake", "good_driver:Driver"), bad_driver=module, good_driver=GOOD)
    registry = DriverRegistry()
    bad, good = registry.listing()
    assert isinstance(bad, BrokenDriver)
    assert (bad.name, bad.distribution) == ("bad", "dist-a")
    assert reason in bad.reason
    assert isinstance(good, LoadedDriver)
    assert registry.get("fake").name == "fake"
    with pytest.raises(EnvironmentRunError, match="is broken: loading bad_driver:Driver failed") as failure:
        registry.get("bad")
    assert failure.value.code is ErrorCode.DRIVER_UNAVAILABLE


def test_an_interrupt_at_import_passes_up(install: Any) -> None:
    install(point("bad", "bad_driver:Driver"), bad_driver="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        DriverRegistry().listing()


def test_two_distributions_with_different_values_for_one_name_are_both_refused(install: Any) -> None:
    install(
        point("fake", "one_driver:Driver", "dist-a"),
        point("fake", "two_driver:Driver", "dist-b"),
        one_driver=GOOD,
        two_driver=GOOD,
    )
    (broken,) = DriverRegistry().listing()
    assert isinstance(broken, BrokenDriver)
    for part in ("one_driver:Driver (dist-a)", "two_driver:Driver (dist-b)", "Uninstall all but one"):
        assert part in broken.reason


def test_the_same_value_declared_twice_counts_once(install: Any) -> None:
    """An editable workspace and its members declare the same drivers."""
    install(
        point("fake", "good_driver:Driver", "dist-a"), point("fake", "good_driver:Driver", "dist-b"), good_driver=GOOD
    )
    candidates = find_candidates()
    assert candidates["fake"].distributions == ("dist-a", "dist-b")
    assert isinstance(load_candidate(candidates["fake"]), LoadedDriver)


def test_nothing_is_imported_before_it_is_asked_for(install: Any) -> None:
    install(point("fake", "good_driver:Driver"), good_driver="raise SystemExit(3)")
    registry = DriverRegistry({"given": FakeDriver(name="given")})
    assert registry.names() == ["fake", "given"]
    assert registry.get("given").name == "given"
    assert "good_driver" not in sys.modules


def test_a_given_driver_comes_before_an_installed_one(install: Any) -> None:
    install(point("fake", "bad_driver:Driver"), bad_driver="raise SystemExit(3)")
    assert DriverRegistry({"fake": FakeDriver()}).get("fake").loaded.distribution == "given by the host application"


# -- the shape of a driver --------------------------------------------------------------------------------------------


def no_execute() -> Any:
    class Driver(FakeDriver):
        execute = None  # type: ignore[assignment]

    return Driver()


def misspelled() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def aquire(self, request: Any) -> Any: ...

    return Driver()


def unmarked() -> Any:
    class Driver(FakeDriver):
        async def resume(self, request: Any) -> Any: ...

    return Driver()


def keyword_only() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def probe(self, *, request: Any) -> Any: ...

    return Driver()


def defaulted() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def probe(self, request: Any = None) -> Any: ...

    return Driver()


def renamed() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def probe(self, req: Any) -> Any: ...

    return Driver()


def with_eq() -> Any:
    @attrs.define
    class Driver(FakeDriver):
        pass

    return Driver()


def with_hash() -> Any:
    class Driver(FakeDriver):
        def __hash__(self) -> int:
            return 1

    return Driver()


def async_info() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def driver_info(self) -> Any:  # type: ignore[override]
            return None

    return Driver()


def async_target() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def target(self, request: Any) -> Any: ...

    return Driver()


def wrapper() -> Any:
    class Driver(FakeDriver):
        @hookimpl(wrapper=True)
        def probe(self, request: Any) -> Any:
            return (yield)

    return Driver()


def plugin_hook() -> Any:
    class Driver(FakeDriver):
        @hookimpl
        async def admit(self, operation: Any) -> Any: ...

    return Driver()


def specname() -> Any:
    class Driver(FakeDriver):
        @hookimpl(specname="probe")
        async def connection(self, request: Any) -> Any: ...

    return Driver()


def a_class() -> Any:
    return FakeDriver


def info(**changes: Any) -> Any:
    class Driver(FakeDriver):
        @hookimpl
        def driver_info(self) -> DriverInfo:
            return attrs.evolve(FakeDriver.driver_info(self), **changes)

    return Driver()


def info_answers(answer: Any) -> Any:
    class Driver(FakeDriver):
        @hookimpl
        def driver_info(self) -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer

    return Driver()


BROKEN = {
    "missing hook": (no_execute, "lacks the required hook execute"),
    "misspelled hook": (misspelled, "aquire is marked with @hookimpl, but there is no hook of that name"),
    "unmarked hook": (unmarked, "resume is named like a hook but not marked"),
    "keyword-only": (keyword_only, r"must take exactly \(self, request\), by position"),
    "default": (defaulted, "by position"),
    "renamed": (renamed, "by position"),
    "own eq": (with_eq, "defines its own __eq__ or __hash__"),
    "own hash": (with_hash, "defines its own __eq__ or __hash__"),
    "async driver_info": (async_info, "driver_info is async"),
    "async target": (async_target, "target is async"),
    "wrapper": (wrapper, "is a wrapper"),
    "plugin's hook": (plugin_hook, "is a hook of plugins"),
    "specname": (specname, "uses specname"),
    "class": (a_class, "gives a class that makes classes"),
    "no object": (lambda: None, "lacks the required hooks"),
    "api": (lambda: info(api_version="2.0"), "written for driver api 2.0; this sojourn has 1.0"),
    "name": (lambda: info(name="other"), "name is 'other', but the entry point is 'fake'"),
    "config class": (lambda: info(config_class=dict), "is not an attrs class"),
    "transfers": (lambda: info(transfers=("pigeon",)), "must be one or both"),
    "no transfers": (lambda: info(transfers=()), "must be one or both"),
    "info None": (lambda: info_answers(None), "returned NoneType, not sojourn.DriverInfo"),
    "info raises": (lambda: info_answers(ValueError("odd")), r"driver_info\(\) failed: ValueError: odd"),
    "info exits": (lambda: info_answers(SystemExit(3)), r"driver_info\(\) failed: SystemExit: 3"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_driver_of_the_wrong_shape_is_broken_and_says_how(kind: str) -> None:
    make, reason = BROKEN[kind]
    broken = load_instance("fake", make())
    assert isinstance(broken, BrokenDriver)
    with pytest.raises(EnvironmentRunError, match=reason):
        DriverRegistry({"fake": make()}).get("fake")


def test_a_newer_minor_api_and_private_helpers_are_fine() -> None:
    class Driver(FakeDriver):
        @hookimpl
        def driver_info(self) -> DriverInfo:
            return attrs.evolve(FakeDriver.driver_info(self), api_version="1.7")

        def helper(self, anything: Any, *, at: Any = None) -> None: ...

        @property
        def explodes(self) -> Any:
            raise AssertionError("a property was run while the driver was looked at")

    assert isinstance(load_instance("fake", Driver()), LoadedDriver)


def test_one_object_under_two_names_is_broken_the_second_time() -> None:
    class Either(FakeDriver):
        @hookimpl
        def driver_info(self) -> DriverInfo:
            self._name = "two" if getattr(self, "asked", False) else "one"
            self.asked = True
            return FakeDriver.driver_info(self)

    driver = Either()
    registry = DriverRegistry({"one": driver, "two": driver})
    assert registry.get("one").name == "one"
    with pytest.raises(EnvironmentRunError, match="cannot be registered"):
        registry.get("two")


async def test_a_hook_reaches_its_own_driver_only_also_after_others_were_loaded() -> None:
    """A caller made before another driver was registered would call that one too."""
    drivers = {name: FakeDriver(name=name) for name in ("a", "b", "c")}
    registry = DriverRegistry(drivers)
    first = registry.get("a")
    assert first.load_config({}, "config") == FakeConfig()
    for name in ("a", "b", "c"):
        driver = registry.get(name)
        await driver.close()
        await first.close()
    assert [len(driver.calls) for driver in drivers.values()] == [4, 1, 1]
