"""A chaos driver misbehaves where it is told to, and nowhere else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sojourn import wire
from sojourn.discovery import LoadedDriver, load_instance
from sojourn.drivers import Driver, DriverRegistry
from sojourn.errors import Busy, DriverBug, InvalidConfig, OutcomeUnknown, Unavailable
from sojourn.guard import HookTimedOut
from sojourn.hooks import DRIVER_HOOKS, hookimpl
from sojourn.models import AcquireRequest, Actor, Disposition, ExecuteRequest, ReleaseRequest, RunContext
from sojourn.settings import Settings
from sojourn.streams import LiveIO
from sojourn.testing import ChaosDriver, FakeDriver, Fault


class Blocking(FakeDriver):
    """The same with a plain ``def`` hook."""

    @hookimpl
    def probe(self, request):
        raise Unavailable("the inner driver was called")


def driver_of(
    *faults: Fault, inner: Any = None, timeout_seconds: float = 30.0
) -> tuple[Driver, ChaosDriver, dict[str, Any]]:
    chaos = ChaosDriver(inner or FakeDriver(), faults)
    driver = DriverRegistry({"fake": chaos}, Settings(abandon_after_seconds=0.2)).get("fake")
    fields = {
        "installation_id": "here",
        "environment_id": None,
        "config": driver.load_config({}, "config"),
        "context": RunContext(tenant="t", run_id="r", agent_id=None),
        "actor": Actor(type="operator"),
        "timeout_seconds": timeout_seconds,
        "resource_id": "r-1",
        "lease_id": "l-1",
        "epoch": 1,
        "handle": None,
    }
    return driver, chaos, fields


async def acquire(driver: Driver, fields: dict[str, Any]) -> Any:
    return await driver.acquire(AcquireRequest(**fields, spec="s", transfer="copy"))


async def execute(driver: Driver, fields: dict[str, Any]) -> Any:
    return await driver.execute(ExecuteRequest(**fields, exec_id="e-1", argv=("exit", "3")), LiveIO(None, 100))


def failure(call: Callable[[], Awaitable[Any]]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is looked at by each test
        asyncio.run(call())
    return caught.value


def test_it_loads_as_its_inner_driver_does():
    inner = FakeDriver()
    loaded = load_instance("fake", ChaosDriver(inner))
    assert isinstance(loaded, LoadedDriver)
    assert {hook for hook in DRIVER_HOOKS if loaded.has(hook)} == {h for h in DRIVER_HOOKS if hasattr(inner, h)}
    assert loaded.is_async("acquire")
    assert not loaded.is_async("target")


def test_no_fault_no_difference():
    driver, chaos, fields = driver_of()
    assert asyncio.run(acquire(driver, fields)).provider_lease_id == "fake://r-1"
    assert asyncio.run(execute(driver, fields)).exit_code == 3
    assert (chaos.count("acquire"), chaos.count("execute")) == (1, 1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", ["Busy", "OutcomeUnknown", "InvalidConfig"])
def test_an_error_before_or_after_the_effect(error: str, when: Any):
    driver, chaos, fields = driver_of(Fault(hook="acquire", action="raise", error=error, when=when))
    raised = failure(lambda: acquire(driver, fields))
    assert type(raised).__name__ == error
    assert isinstance(raised, Busy | OutcomeUnknown | InvalidConfig)
    assert bool(chaos.inner.world.resources) == (when == "after")


@pytest.mark.parametrize("error", ["SystemExit", "MemoryError", "RecursionError", "BaseException", "CancelledError"])
def test_a_foreign_error_is_a_bug_of_the_driver(error: str):
    driver, _, fields = driver_of(Fault(hook="acquire", action="raise", error=error))
    assert isinstance(failure(lambda: acquire(driver, fields)), DriverBug)


def test_only_the_calls_that_are_named():
    driver, chaos, fields = driver_of(Fault(hook="acquire", action="raise", error="Busy", calls=(2,)))

    async def three() -> list[Any]:
        return [await asyncio.gather(acquire(driver, fields), return_exceptions=True) for _ in range(3)]

    answers = [answer for (answer,) in asyncio.run(three())]
    assert [isinstance(answer, Busy) for answer in answers] == [False, True, False]
    assert chaos.count("acquire") == 3


def test_flapping():
    fault = Fault(hook="acquire", action="raise", fail_calls=2, pass_calls=1)
    assert [fault.applies("acquire", call) for call in range(1, 7)] == [True, True, False, True, True, False]


@pytest.mark.parametrize("action", ["hang", "hang_ignoring_cancel"])
def test_hanging_meets_the_deadline(action: Any):
    driver, _, fields = driver_of(Fault(hook="acquire", action=action), timeout_seconds=0.1)
    raised = failure(lambda: acquire(driver, fields))
    assert isinstance(raised, HookTimedOut)
    assert raised.abandoned == (action == "hang_ignoring_cancel")


def test_blocking_the_loop_is_noticed():
    driver, _, fields = driver_of(Fault(hook="acquire", action="block", seconds=1.2))
    asyncio.run(acquire(driver, fields))
    assert driver.guard.blocked == 1


def test_slow_goes_on():
    driver, _, fields = driver_of(Fault(hook="acquire", action="slow", seconds=0.3))
    began = time.monotonic()
    asyncio.run(acquire(driver, fields))
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("garbage", ["none", "wrong_type", "nan_handle", "huge_handle", "unserialisable_handle"])
def test_garbage_of_acquire(garbage: Any):
    driver, _, fields = driver_of(Fault(hook="acquire", action="garbage", garbage=garbage))
    assert isinstance(failure(lambda: acquire(driver, fields)), DriverBug)


@pytest.mark.parametrize("garbage", ["none", "negative_exit_code", "no_exit_code"])
def test_garbage_of_execute(garbage: Any):
    driver, _, fields = driver_of(Fault(hook="execute", action="garbage", garbage=garbage, when="after"))
    asyncio.run(acquire(driver, fields))
    assert isinstance(failure(lambda: execute(driver, fields)), DriverBug)


def test_a_plain_def_hook_misbehaves_in_its_thread():
    _, chaos, _ = driver_of(Fault(hook="probe", action="raise", error="Busy"), inner=Blocking())
    with pytest.raises(Busy):
        chaos.probe(None)


def test_release_fails_as_long_as_it_is_told_to():
    driver, _, fields = driver_of(Fault(hook="release", action="raise", error="Unavailable", calls=(1, 2)))

    async def body() -> str:
        await acquire(driver, fields)
        request = ReleaseRequest(**fields, disposition=Disposition.DESTROY)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await driver.release(request)
        return (await driver.release(request)).state

    assert asyncio.run(body()) == "gone"


def test_a_fault_goes_over_a_wire():
    fault = Fault(hook="execute", action="raise", error="Gone", calls=(1, 3), when="after")
    assert wire.load(Fault, wire.dump(fault)) == fault


@pytest.mark.parametrize(("field", "value"), [("hook", "acquier"), ("error", "NoSuchError"), ("error", "print")])
def test_a_typo_in_a_fault_is_refused(field: str, value: str):
    with pytest.raises(ValueError, match=value):
        Fault(**{"hook": "acquire", "action": "raise", field: value})


def test_exiting_the_process():
    program = (
        "import asyncio\nfrom sojourn.testing import ChaosDriver, FakeDriver, Fault\n"
        "chaos = ChaosDriver(FakeDriver(), [Fault(hook='close', action='exit_process', exit_code=71)])\n"
        "asyncio.run(chaos.close())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 71
