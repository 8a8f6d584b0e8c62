"""A secret goes to the driver and to the command, and nowhere else: no row, activity, log record, error text or repr."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import attrs
import pytest

from sojourn.errors import EnvironmentRunError, Unavailable
from sojourn.hooks import hookimpl
from sojourn.models import AcquireRequest, AcquireResult, CommandOutcome, Outcome, ReleaseRequest
from sojourn.realization_records import Overlay
from sojourn.secrets import Secret
from sojourn.testing import FakeDriver
from sojourn.variables import Variables

IN_CONFIG = "cfgcanary-0123456789abcdef-xyzw-"
IN_ENV = "envcanary-fedcba9876543210-wxyz-"
CANARIES = (IN_CONFIG, IN_ENV)


class Careless(FakeDriver):
    """A driver that repeats every secret it gets, in every place that a driver has."""

    fails: Any = ()

    def _token(self, request: Any) -> str:
        return request.config.token.reveal()

    @hookimpl
    async def acquire(self, request: AcquireRequest) -> AcquireResult:
        if "acquire" in self.fails:
            raise Unavailable(f"login with {self._token(request)} failed")
        if "acquire bug" in self.fails:
            raise RuntimeError(f"login with {self._token(request)} failed")
        result = await FakeDriver.acquire(self, request)
        token = self._token(request)
        return attrs.evolve(
            result, provider_lease_id=f"id-{token}", remote_cwd=None, metadata={"t": token, "l": [IN_ENV], "ok": "kept"}
        )

    @hookimpl
    async def realize(self, request: Any) -> Any:
        if "realize" in self.fails:
            raise Unavailable(f"no folder for {self._token(request)}")
        return await FakeDriver.realize(self, request)

    @hookimpl
    def target(self, request: Any) -> Any:
        if "target" in self.fails:
            raise Unavailable(f"no target for {self._token(request)}")
        return FakeDriver.target(self, request)

    @hookimpl
    async def execute(self, request: Any, io: Any) -> CommandOutcome:
        if "execute" in self.fails:
            raise Unavailable(f"no shell for {self._token(request)} {request.env.get('TOKEN')}")
        if "execute bug" in self.fails:
            raise RuntimeError(f"no shell for {self._token(request)} {request.env.get('TOKEN')}")
        if request.argv[-1] == "leak":
            for stream in ("stdout", "stderr"):
                await io.write(stream, f"using {self._token(request)} {request.env['TOKEN']}\n".encode())
            code = 1 if "provision" in self.fails else 0
            return CommandOutcome(outcome=Outcome.EXITED, exit_code=code, detail=f"{self._token(request)}")
        return await FakeDriver.execute(self, request, io)

    @hookimpl
    async def release(self, request: ReleaseRequest) -> Any:
        if "release" in self.fails:
            raise Unavailable(f"logout with {self._token(request)} failed")
        return await FakeDriver.release(self, request)


def chain(error: BaseException | None) -> str:
    """Everything that is shown of an exception: its text, its notes, its causes, as a traceback prints them."""
    return "".join(traceback.format_exception(error)) if error else ""


@pytest.mark.parametrize(
    "fails",
    [
        [],
        ["acquire"],
        ["acquire bug"],
        ["target"],
        ["realize"],
        ["provision"],
        ["execute"],
        ["execute bug"],
        ["release"],
    ],
)
async def test_no_secret_is_stored_logged_or_shown(lab: Any, monkeypatch: Any, caplog: Any, fails: Any) -> None:
    """(behaviours 10 and 18) 32 random characters through config and env, with a driver that repeats them everywhere."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CANARY_CONFIG", IN_CONFIG)
    monkeypatch.setenv("CANARY_ENV", IN_ENV)
    driver = Careless(world=lab.world)
    driver.fails = fails
    shown: list[str] = []
    try:
        async with lab.open(driver) as orchestrator:
            environment = await orchestrator.environments.create(
                "build", "fake", {"token": "env:CANARY_CONFIG"}, env={"TOKEN": Secret("env:CANARY_ENV")}
            )
            shown += [repr(environment), str(await orchestrator.environments.list())]
            variables = Variables(run={"OTHER": Secret("env:CANARY_ENV")})
            overlay = Overlay(provision="leak", teardown="leak")
            async with orchestrator.session(
                environment="build", run=lab.run(), variables=variables, overlay=overlay
            ) as session:
                shown += [repr(session.lease), repr(session.realization), repr(session.acquisition), repr(variables)]
                result = await session.execute(["printenv", "TOKEN"])
                assert result.stdout.decode() == IN_ENV, "the command itself gets the value"
                shown.append(repr(result))
            shown.append(repr(session.release_report))
    except EnvironmentRunError as error:
        shown += [chain(error), repr(error), str(error)]
    if "release" in fails:
        async with lab.open(driver) as orchestrator:
            shown.append(repr(await orchestrator.reap(force=True)))
    driver.fails = []
    for canary in CANARIES:
        assert canary not in lab.all_text(), "in a row or an activity"
        assert canary not in caplog.text, "in the log"
        assert canary not in "\n".join(str(vars(record)) for record in caplog.records), "in a log record"
        for text in shown:
            assert canary not in text
    if not fails:
        assert lab.lease()["metadata"]["ok"] == "kept"


async def test_a_value_typed_in_the_place_of_a_reference_is_refused_and_not_repeated(lab: Any) -> None:
    async with lab.open() as orchestrator:
        with pytest.raises(EnvironmentRunError, match=r"config\.token: is not a secret reference") as failure:
            await orchestrator.environments.create("build", "fake", {"token": IN_CONFIG})
    assert IN_CONFIG not in chain(failure.value)
    assert IN_CONFIG not in lab.all_text()


async def test_a_secret_is_resolved_anew_for_each_call(lab: Any, monkeypatch: Any) -> None:
    """A value that was rotated meanwhile is the new one from the next command on."""
    monkeypatch.setenv("ROTATED", "first")
    async with lab.open() as orchestrator:
        await orchestrator.environments.create("build", "fake", env={"TOKEN": Secret("env:ROTATED")})
        async with orchestrator.session(environment="build") as session:
            seen = [(await session.execute(["printenv", "TOKEN"])).stdout]
            monkeypatch.setenv("ROTATED", "second")
            seen.append((await session.execute(["printenv", "TOKEN"])).stdout)
            monkeypatch.delenv("ROTATED")
            with pytest.raises(EnvironmentRunError, match="ROTATED"):
                await session.execute(["true"])
    assert seen == [b"first", b"second"]


async def test_stdin_and_env_are_in_no_argv(lab: Any, monkeypatch: Any, until: Any) -> None:
    """(architecture 5)"""
    monkeypatch.setenv("CANARY_ENV", IN_ENV)
    async with lab.session() as (_, session):
        task = asyncio.create_task(session.execute(["tree"], env={"X": Secret("env:CANARY_ENV")}, stdin=IN_CONFIG))
        await until(lambda: len(lab.world.processes()) == 3)
        words = [word for process in lab.world.processes() for word in process.argv]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not any(canary in word for word in words for canary in CANARIES)
