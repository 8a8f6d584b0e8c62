"""A process made to be killed: it follows a plan with the local driver and ends itself with SIGKILL at the point named there.

Points are written ``kind:…``:

- ``before:HOOK``, ``after:HOOK``: a plugin's ``around``, before or after the driver's hook;
- ``driver:HOOK:before``, ``driver:HOOK:after``: inside the hook, before or after its effect (`ChaosDriver`);
- ``commit:N:before``, ``commit:N:after``: the N-th transaction of the process, before it begins or after it is committed;
- ``activity:ACTION``: after the commit of the transition that this activity belongs to;
- ``code:MODULE.FUNCTION:N:before``, ``…:after``: the N-th call of any function.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import itertools
import json
import logging
import os
import random
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import sojourn_local
from sojourn import Orchestrator, RunContext, Secret, Settings, hookimpl
from sojourn.realization_records import Overlay, Workspace
from sojourn.store import Store
from sojourn.testing.chaos import ChaosDriver, Fault
from sojourn.variables import Variables

SETTINGS = Settings(grace_seconds=0.3)


def die() -> None:
    """End this process as a power cut would: no handler, no `finally`, no buffer written."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """The plugin whose hooks are points; it also writes down every driver call that was made."""

    def __init__(self, point: str, calls: Path) -> None:
        self.kind, _, self.name = point.partition(":")
        self.calls = calls

    @hookimpl
    async def around(self, operation: Any, call_next: Any) -> Any:
        if (self.kind, self.name) == ("before", operation.name):
            die()
        self.note("begin", operation)
        answer = await call_next()
        self.note("end", operation)
        if (self.kind, self.name) == ("after", operation.name):
            die()
        return answer

    @hookimpl
    def on_activity(self, event: Any) -> None:
        if (self.kind, self.name) == ("activity", event.action):
            die()

    def note(self, what: str, operation: Any) -> None:
        append(self.calls, f"{what} {operation.name} {operation.lease_id} {os.getpid()}")


def append(path: Path, line: str) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def kill_at_commit(number: int, when: str, log: Path) -> None:
    """Count the transactions of the process and die around the ``number``-th."""
    counted, run = itertools.count(1), Store.run

    async def run_or_die(self: Store, fn: Any, *args: Any, **kwargs: Any) -> Any:
        current = next(counted)
        if (current, when) == (number, "before"):
            die()
        answer = await run(self, fn, *args, **kwargs)
        append(log, f"{current} {getattr(fn, '__qualname__', fn)}")
        if (current, when) == (number, "after"):
            die()
        return answer

    Store.run = run_or_die  # type: ignore[method-assign, assignment]


def kill_at_call(dotted: str, number: int, when: str) -> None:
    """Die around the ``number``-th call of a function of the code under test."""
    module_name, _, name = dotted.rpartition(".")
    module = importlib.import_module(module_name)
    inner, counted = getattr(module, name), itertools.count(1)

    def due(at: str, current: int) -> bool:
        return (current, at) == (number, when)

    @functools.wraps(inner)
    def plain(*args: Any, **kwargs: Any) -> Any:
        current = next(counted)
        if due("before", current):
            die()
        answer = inner(*args, **kwargs)
        if due("after", current):
            die()
        return answer

    @functools.wraps(inner)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        current = next(counted)
        if due("before", current):
            die()
        answer = await inner(*args, **kwargs)
        if due("after", current):
            die()
        return answer

    setattr(module, name, awaited if inspect.iscoroutinefunction(inner) else plain)


def driver(point: str) -> Any:
    kind, _, rest = point.partition(":")
    if kind != "driver":
        return sojourn_local.LocalDriver()
    hook, when = rest.split(":")
    return ChaosDriver(sojourn_local.LocalDriver(), [Fault(hook=hook, action="exit_process", when=when)])  # type: ignore[arg-type]


class Plan:
    """What the process is to do; see `Scene.plan` for the fields."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.folder = Path(values["folder"])

    def __getattr__(self, name: str) -> Any:
        return self.values[name]

    def say(self, word: str) -> None:
        """Tell the harness how far we are."""
        (self.folder / "said" / f"{word}-{os.getpid()}").touch()


async def use(
    plan: Plan, orchestrator: Orchestrator, mode: str, commands: list[list[str]], provision: str | None
) -> None:
    """One session: its commands at once, with a secret in their environment."""
    strategy = "git_worktree" if mode == "git_worktree" else "project_primary"
    secret = {"CANARY": Secret("env:SOJOURN_TEST_CANARY")}
    async with orchestrator.session(
        environment="here",
        workspace=Workspace(local_path=plan.source, strategy=strategy),  # type: ignore[arg-type]
        run=RunContext(tenant="default", run_id=f"run-{os.urandom(6).hex()}", agent_id="agent-1"),
        transfer="copy" if mode == "copy" else "in_place",
        overlay=Overlay(provision=provision, provision_in_place=True),
        variables=Variables(run=secret),
    ) as session:
        results = await asyncio.gather(*(session.execute(argv) for argv in commands))
        for argv, result in zip(commands, results, strict=True):
            append(plan.folder / "results", f"{argv[-1]} {result.outcome} {result.exit_code}")


async def follow(plan: Plan) -> None:
    killer = Killer(plan.point, plan.folder / "calls")
    async with Orchestrator.open(
        plan.store, drivers={"local": driver(plan.point)}, plugins=[killer], settings=SETTINGS
    ) as orchestrator:
        plan.say("open")
        if plan.action == "reap":
            await orchestrator.reap()
        elif plan.action == "leave":
            # A lease without a session: closing the orchestrator has to give it back.
            run = RunContext(tenant="default", run_id="left-open", agent_id=None)
            acquired = await orchestrator.acquire_for_run(run, "here", transfer="copy")
            await orchestrator.realize_for_run(acquired, plan.source)
        elif plan.action == "repeat":
            rng = random.Random(plan.seed)
            for number in itertools.count():
                mode = rng.choice(("copy", "in_place", "git_worktree"))
                commands = [[*command[:-1], f"{command[-1]}-{number}"] for command in plan.commands]
                await use(plan, orchestrator, mode, commands, None)
        else:
            await use(plan, orchestrator, plan.mode, plan.commands, plan.provision)
    plan.say("closed")


def main(values: dict[str, Any]) -> None:
    """Be the process of one plan."""
    plan = Plan(values)
    os.environ.clear()
    os.environ.update(plan.environment)
    log = os.open(plan.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    kind, _, rest = plan.point.partition(":")
    if kind == "commit":
        number, when = rest.split(":")
        kill_at_commit(int(number), when, plan.folder / "commits")
    elif kind == "code":
        dotted, call, when = rest.split(":")
        kill_at_call(dotted, int(call), when)
    asyncio.run(follow(plan))


def serve() -> None:
    """Fork a process for every plan on stdin; say its pid, and later how it ended.

    Each starts with everything imported, a second sooner than a new interpreter would. This process itself has one thread and
    no event loop.
    """
    living: dict[int, int] = {}
    lines = b""
    while True:
        ready, _, _ = select.select([0, *living], [], [])
        for pidfd in ready:
            if pidfd != 0:
                pid, status = os.waitpid(living.pop(pidfd), 0)
                os.close(pidfd)
                say(f"ended {pid} {os.waitstatus_to_exitcode(status)}")
        if 0 in ready:
            piece = os.read(0, 65536)
            if not piece:
                return
            *whole, lines = (lines + piece).split(b"\n")
            for line in whole:
                pid = fork(json.loads(line))
                living[os.pidfd_open(pid)] = pid
                say(f"started {pid}")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def fork(values: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            main(values)
            status = 0
        except BaseException:  # noqa: BLE001 - reported, and the process ends whatever it was
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


if __name__ == "__main__":
    serve()
