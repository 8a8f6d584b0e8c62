"""The guard: deadlines, foreign exceptions, blocked loops, threads that hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from sojourn.errors import Busy, DriverBug
from sojourn.guard import Guard, HookTimedOut


async def call(guard: Guard, hook: Any, timeout_seconds: float | None = 5.0) -> Any:
    return await guard.call(
        "hook", hook, asynchronous=asyncio.iscoroutinefunction(hook), timeout_seconds=timeout_seconds
    )


async def answer() -> str:
    return "async"


async def test_an_answer_comes_through_from_the_loop_and_from_a_thread() -> None:
    guard = Guard("d")
    assert await call(guard, answer) == "async"
    assert await call(guard, lambda: threading.current_thread().name) == "sojourn-d-1"
    guard.close()


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), MemoryError(), RecursionError(), GeneratorExit(), BaseException("x")]
)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_foreign_exception_is_a_bug_with_its_cause(error: BaseException, asynchronous: bool) -> None:
    async def raises() -> None:
        raise error

    def raises_in_thread() -> None:
        raise error

    guard = Guard("d")
    with pytest.raises(DriverBug, match=f"driver d: hook raised {type(error).__name__}") as failure:
        await call(guard, raises if asynchronous else raises_in_thread)
    assert failure.value.__cause__ is error
    guard.close()


async def test_a_driver_error_comes_through_as_it_is() -> None:
    error = Busy("later")

    async def raises() -> None:
        raise error

    with pytest.raises(Busy) as failure:
        await call(Guard("d"), raises)
    assert failure.value is error


async def test_a_cancellation_of_the_drivers_own_is_a_bug_and_ours_is_ours() -> None:
    async def raises() -> None:
        raise asyncio.CancelledError

    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append("tidied up")

    guard = Guard("d")
    with pytest.raises(DriverBug, match="though nobody cancelled it"):
        await call(guard, raises)
    task = asyncio.create_task(call(guard, waits))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["tidied up"], "the hook is awaited before the cancellation goes on"


async def test_a_missed_deadline_cancels_the_hook() -> None:
    async def waits() -> None:
        await asyncio.sleep(60)

    guard = Guard("d")
    with pytest.raises(HookTimedOut, match=r"driver d: hook did not end within 0\.05 s and was cancelled") as failure:
        await call(guard, waits, 0.05)
    assert (failure.value.abandoned, guard.abandoned) == (False, 0)


async def ignores() -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_hook_that_ignores_its_end_is_abandoned_and_counted(asynchronous: bool, caplog: Any) -> None:
    """And the driver's other calls go on, also when its only thread hangs."""
    release = threading.Event()
    guard = Guard("d", abandon_after_seconds=0.05, threads=1)
    with pytest.raises(HookTimedOut, match="abandoned") as failure:
        await call(guard, ignores if asynchronous else (lambda: release.wait(30)), 0.05)
    assert (failure.value.abandoned, guard.abandoned) == (True, 1)
    assert "ignored its cancellation" in caplog.text
    assert await asyncio.wait_for(call(guard, lambda: "still there"), 5) == "still there"
    release.set()
    guard.close()


async def test_a_hook_that_answers_while_it_is_cancelled_has_answered() -> None:
    async def late() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "made after all"
        return ""

    assert await call(Guard("d"), late, 0.05) == "made after all"


async def test_a_caller_that_is_cancelled_twice_still_gives_up_a_hook_that_ignores_it() -> None:
    guard = Guard("d", abandon_after_seconds=0.2)
    task = asyncio.create_task(call(guard, ignores, None))
    for _ in range(3):
        await asyncio.sleep(0.03)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert guard.abandoned == 1
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_a_hook_that_blocks_the_loop_is_reported(caplog: Any) -> None:
    async def blocks() -> str:
        time.sleep(0.1)
        await asyncio.sleep(0)
        return "done"

    guard = Guard("d", blocked_after_seconds=0.05)
    assert await call(guard, blocks) == "done"
    assert guard.blocked == 1
    assert "driver d: hook blocked the event loop" in caplog.text
    assert await call(guard, answer) == "async"
    assert guard.blocked == 1


def test_a_keyboard_interrupt_passes_up() -> None:
    async def raises() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(call(Guard("d"), raises))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_hook_that_hangs_does_not_hold_the_interpreters_exit(asynchronous: bool) -> None:
    program = f"""
        import asyncio, time
        from sojourn.errors import OutcomeUnknown
        from sojourn.guard import Guard

        async def hangs():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        async def main():
            guard = Guard("d", abandon_after_seconds=0.1)
            hook = hangs if {asynchronous} else (lambda: time.sleep(60))
            try:
                await guard.call("hook", hook, asynchronous={asynchronous}, timeout_seconds=0.1)
            except OutcomeUnknown:
                print("given up")

        asyncio.run(main())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "given up\n"), done.stderr
