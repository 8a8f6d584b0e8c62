"""A driver around another one that misbehaves exactly where it is told to; the faults are data."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import attrs

from sojourn import errors
from sojourn.hooks import DRIVER_HOOKS, DriverSpec, hookimpl
from sojourn.models import AcquireResult, CommandOutcome, Outcome

__all__ = ["ChaosDriver", "Fault"]

Action: TypeAlias = Literal["raise", "hang", "hang_ignoring_cancel", "block", "slow", "garbage", "exit_process"]
Garbage: TypeAlias = Literal[
    "none", "wrong_type", "nan_handle", "huge_handle", "unserialisable_handle", "negative_exit_code", "no_exit_code"
]

FOREVER_SECONDS = 3600.0


def _check_error(_: object, __: object, name: str | None) -> None:
    if name is not None and _error_class(name) is None:
        raise ValueError(f"must name a class of sojourn.errors or a builtin exception, not {name}")


def _check_hook(_: object, __: object, name: str) -> None:
    if name not in DRIVER_HOOKS:
        raise ValueError(f"must be a hook of a driver, not {name}")


@attrs.frozen(kw_only=True)
class Fault:
    """One way to misbehave. JSON-able through `sojourn.wire`, so that it can be handed to another process.

    Args:
        hook: which hook misbehaves.
        action: ``raise`` ``error``; ``hang`` (an `async def` awaits for ever, a plain ``def`` blocks its thread);
            ``hang_ignoring_cancel``; ``block`` the event loop; ``slow``: go on after ``seconds``; give ``garbage``;
            ``exit_process`` with ``exit_code`` (for tests with a process of their own).
        calls: which calls of the hook, counted from 1; empty is every call.
        fail_calls: with ``pass_calls``: flap, this many calls with the fault and then that many without, over and over.
        pass_calls: see ``fail_calls``; 0 is no flapping.
        when: ``before`` the effect (the inner driver is not called unless the action goes on) or ``after`` it.
        error: name of a class of `sojourn.errors`, or of a builtin exception such as ``SystemExit``.
        message: of the error.
        seconds: how long ``slow`` and ``block`` last; for ``hang`` in a plain ``def`` the time until it lets go, so that no
            thread is held for ever.
        garbage: what to answer.
        exit_code: of the process.
    """

    hook: str = attrs.field(validator=_check_hook)
    action: Action
    calls: tuple[int, ...] = ()
    fail_calls: int = 1
    pass_calls: int = 0
    when: Literal["before", "after"] = "before"
    error: str | None = attrs.field(default=None, validator=_check_error)
    message: str = "injected fault"
    seconds: float = 1.0
    garbage: Garbage = "none"
    exit_code: int = 70

    def applies(self, hook: str, call: int) -> bool:
        """Whether the ``call``-th call of ``hook`` misbehaves."""
        if hook != self.hook or (self.calls and call not in self.calls):
            return False
        return not self.pass_calls or (call - 1) % (self.fail_calls + self.pass_calls) < self.fail_calls


class ChaosDriver:
    """A driver that delegates every hook to ``inner`` and misbehaves as ``faults`` say; it has the hooks that ``inner`` has.

    Args:
        inner: any driver object.
        faults: looked at in order; the first that applies to a call is done.
    """

    def __new__(cls, inner: Any, faults: Iterable[Fault] = ()) -> ChaosDriver:
        """Make an object of a class of its own that has exactly the hooks of ``inner``."""
        hooks = {name: _delegate(name, inner) for name in DRIVER_HOOKS if callable(getattr(inner, name, None))}
        made: type[ChaosDriver] = type(cls.__name__, (cls,), hooks)
        return object.__new__(made)

    def __init__(self, inner: Any, faults: Iterable[Fault] = ()) -> None:
        self.inner = inner
        self.faults = list(faults)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, hook: str) -> int:
        """Return how often ``hook`` was called, faults included."""
        return self._counts[hook]

    def _fault(self, hook: str) -> Fault | None:
        with self._lock:
            self._counts[hook] += 1
            call = self._counts[hook]
        return next((fault for fault in self.faults if fault.applies(hook, call)), None)

    async def _call(self, hook: str, *values: Any) -> Any:
        fault = self._fault(hook)
        inner = getattr(self.inner, hook)
        if fault is None:
            return await inner(*values)
        if fault.when == "before":
            await _misbehave(fault)
            return _garbage(fault.garbage) if fault.action == "garbage" else await inner(*values)
        answer = await inner(*values)
        await _misbehave(fault)
        return _garbage(fault.garbage) if fault.action == "garbage" else answer

    def _call_blocking(self, hook: str, *values: Any) -> Any:
        fault = self._fault(hook)
        inner = getattr(self.inner, hook)
        if fault is None:
            return inner(*values)
        if fault.when == "before":
            _misbehave_blocking(fault)
            return _garbage(fault.garbage) if fault.action == "garbage" else inner(*values)
        answer = inner(*values)
        _misbehave_blocking(fault)
        return _garbage(fault.garbage) if fault.action == "garbage" else answer


# -- hooks made to measure --------------------------------------------------------------------------------------------


def _delegate(name: str, inner: Any) -> Callable[..., Any]:
    """Return a hook that calls ``inner``'s, an ``async def`` where that is one. pluggy reads the parameters off its code."""
    make = _ASYNC if inspect.iscoroutinefunction(getattr(inner, name)) else _BLOCKING
    parameters = tuple(inspect.signature(getattr(DriverSpec, name)).parameters)[1:]
    method = make[parameters](name)
    method.__name__ = name
    return hookimpl(method)


def _async_request(name: str) -> Callable[..., Any]:
    async def call(self: ChaosDriver, request: Any) -> Any:
        return await self._call(name, request)

    return call


def _async_io(name: str) -> Callable[..., Any]:
    async def call(self: ChaosDriver, request: Any, io: Any) -> Any:
        return await self._call(name, request, io)

    return call


def _async_stream(name: str) -> Callable[..., Any]:
    async def call(self: ChaosDriver, request: Any, stream: Any) -> Any:
        return await self._call(name, request, stream)

    return call


def _async_bare(name: str) -> Callable[..., Any]:
    async def call(self: ChaosDriver) -> Any:
        return await self._call(name)

    return call


def _request(name: str) -> Callable[..., Any]:
    def call(self: ChaosDriver, request: Any) -> Any:
        return self._call_blocking(name, request)

    return call


def _io(name: str) -> Callable[..., Any]:
    def call(self: ChaosDriver, request: Any, io: Any) -> Any:
        return self._call_blocking(name, request, io)

    return call


def _stream(name: str) -> Callable[..., Any]:
    def call(self: ChaosDriver, request: Any, stream: Any) -> Any:
        return self._call_blocking(name, request, stream)

    return call


def _bare(name: str) -> Callable[..., Any]:
    def call(self: ChaosDriver) -> Any:
        return self._call_blocking(name)

    return call


def _config(name: str) -> Callable[..., Any]:
    def call(self: ChaosDriver, from_version: int, data: Any) -> Any:
        return self._call_blocking(name, from_version, data)

    return call


_Makers: TypeAlias = dict[tuple[str, ...], Callable[[str], Callable[..., Any]]]
_ASYNC: _Makers = {
    ("request",): _async_request,
    ("request", "io"): _async_io,
    ("request", "stream"): _async_stream,
    (): _async_bare,
}
_BLOCKING: _Makers = {
    ("request",): _request,
    ("request", "io"): _io,
    ("request", "stream"): _stream,
    (): _bare,
    ("from_version", "data"): _config,
}


# -- the actions ------------------------------------------------------------------------------------------------------


async def _misbehave(fault: Fault) -> None:
    if fault.action == "hang":
        await asyncio.sleep(FOREVER_SECONDS)
    elif fault.action == "hang_ignoring_cancel":
        await _ignore_cancel()
    elif fault.action == "slow":
        await asyncio.sleep(fault.seconds)
    else:
        _misbehave_blocking(fault)


async def _ignore_cancel() -> None:
    until = time.monotonic() + FOREVER_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


def _misbehave_blocking(fault: Fault) -> None:
    if fault.action == "raise":
        raise _error(fault)
    if fault.action == "exit_process":
        os._exit(fault.exit_code)
    if fault.action != "garbage":
        time.sleep(fault.seconds)


def _error_class(name: str) -> type[BaseException] | None:
    found = getattr(errors, name, None) or getattr(builtins, name, None)
    if name == "CancelledError":
        found = asyncio.CancelledError
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _error(fault: Fault) -> BaseException:
    name = fault.error or "Unavailable"
    if name == "InvalidConfig":
        return errors.InvalidConfig("", fault.message)
    cls = _error_class(name)
    assert cls is not None
    return cls(fault.message)


def _garbage(kind: Garbage) -> Any:
    match kind:
        case "none":
            return None
        case "wrong_type":
            return "garbage"
        case "nan_handle":
            return AcquireResult(handle={"version": float("nan")})
        case "huge_handle":
            return AcquireResult(handle={"version": "x" * (64 * 1024)})
        case "unserialisable_handle":
            return AcquireResult(handle={"version": object()})
        case "negative_exit_code":
            return CommandOutcome(outcome=Outcome.EXITED, exit_code=-1)
        case "no_exit_code":
            return CommandOutcome(outcome=Outcome.EXITED)
