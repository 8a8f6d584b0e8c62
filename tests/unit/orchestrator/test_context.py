"""An orchestrator belongs to the loop, thread and process that opened it; elsewhere it says so."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sojourn.errors import SojournError, WrongContext
from sojourn.hooks import hookimpl
from sojourn.orchestrator import Orchestrator

CALLS: dict[str, Callable[[Orchestrator, Any], Awaitable[Any]]] = {
    "resolve": lambda o, _: o.resolve_environment(),
    "acquire": lambda o, lab: o.acquire_for_run(lab.run(), "build"),
    "release": lambda o, lab: o.release_for_run(lab.run()),
    "reap": lambda o, _: o.reap(),
    "activity": lambda o, _: o.activity(),
    "environments": lambda o, _: o.environments.list(),
    "workspaces": lambda o, _: o.workspaces.list(),
    "leases": lambda o, _: o.leases.list(),
    "session": lambda o, _: o.session(environment="build").__aenter__(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_another_loop_or_thread_is_refused(lab: Any, call: str) -> None:
    async with lab.ready() as (orchestrator, _):
        caught: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(asyncio.wait_for(CALLS[call](orchestrator, lab), 5))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
                caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
    assert [type(error) for error in caught] == [WrongContext]
    assert "another event loop or thread" in str(caught[0])
    assert lab.leases() == []


@pytest.mark.parametrize("call", CALLS)
async def test_a_closed_orchestrator_is_refused(lab: Any, call: str) -> None:
    async with lab.ready() as (orchestrator, _):
        pass
    with pytest.raises(WrongContext, match="is closed; open a new one"):
        await CALLS[call](orchestrator, lab)


async def test_a_session_is_refused_in_another_thread(lab: Any) -> None:
    async with lab.session() as (_, session):

        def elsewhere() -> BaseException | None:
            try:
                asyncio.run(asyncio.wait_for(session.execute(["true"]), 5))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
                return error
            return None

        error = await asyncio.to_thread(elsewhere)
        assert isinstance(error, WrongContext)
        assert (await session.execute(["true"])).ok
    assert lab.driver.count("execute") == 1


def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on(lab: Any) -> None:
    """The child has neither the parent's threads nor the right to its connections."""
    program = """
        import asyncio, os, sys
        from sojourn.errors import WrongContext
        from sojourn.orchestrator import Orchestrator
        from sojourn.testing import FakeDriver

        async def main():
            async with Orchestrator.open(sys.argv[1], drivers={"fake": FakeDriver()}) as orchestrator:
                environment = await orchestrator.environments.create("build", "fake")
                if (child := os.fork()) == 0:
                    try:
                        await orchestrator.resolve_environment("build")
                    except WrongContext as error:
                        os._exit(7 if "another process" in str(error) else 8)
                    os._exit(9)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
                found = await orchestrator.resolve_environment("build")
                assert found.environment == environment
        asyncio.run(main())
        print("done")
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), os.fspath(lab.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


async def test_a_store_that_was_given_stays_open(lab: Any) -> None:
    from sojourn.store import Store

    store = await Store.open(lab.path)
    try:
        async with lab.ready(store=store):
            pass
        async with lab.ready(store=store) as (orchestrator, _):
            assert len(await orchestrator.environments.list()) == 1
    finally:
        await store.close()


async def test_an_orchestrator_that_cannot_be_opened_leaves_no_holder(lab: Any) -> None:
    async with lab.open():
        pass

    class Misspelled:
        @hookimpl
        async def admitt(self, operation: Any) -> None: ...

    with pytest.raises(SojournError, match="cannot be loaded"):
        async with lab.open(plugins=[Misspelled()]):
            pytest.fail("a plugin with an unknown hook was taken")
    assert lab.sql("SELECT * FROM holders") == []
