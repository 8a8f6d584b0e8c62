"""Plugins: they admit, wrap, watch, resolve secrets and name adapters, and none of them can take the core down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.errors import DriverBug, EnvironmentRunError, ErrorCode, SojournError, Unavailable
from sojourn.hooks import hookimpl
from sojourn.records import AdapterSpec
from sojourn.secrets import Secret


class Deny:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or PermissionError("not on a Friday")
        self.operations: list[Any] = []

    @hookimpl
    async def admit(self, operation: Any) -> None:
        self.operations.append(operation)
        raise self.error


# -- admit ------------------------------------------------------------------------------------------------------------


async def test_admit_denies_before_any_row_with_its_reason(lab: Any) -> None:
    plugin = Deny()
    async with lab.ready(plugins=[plugin]) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match=r"acquire was denied by plugin .*not on a Friday") as failure:
            await orchestrator.acquire_lease(environment, lab.run())
    assert (failure.value.code, failure.value.phase) == (ErrorCode.LEASE_ACQUIRE_FAILED, "admit")
    assert lab.leases() == []
    assert lab.driver.count("acquire") == 0
    (operation,) = plugin.operations
    assert (operation.name, operation.environment_id, operation.driver) == ("acquire", environment.id, "fake")
    assert operation.context == lab.run()


@pytest.mark.parametrize("error", [SystemExit("bye"), asyncio.CancelledError(), BaseException("odd")])
async def test_whatever_admit_raises_denies(lab: Any, error: BaseException) -> None:
    async with lab.ready(plugins=[Deny(error)]) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match="denied"):
            await orchestrator.acquire_lease(environment, lab.run())
    assert lab.leases() == []


async def test_an_admit_that_hangs_denies(lab: Any, monkeypatch: Any) -> None:
    class Hang:
        @hookimpl
        async def admit(self, operation: Any) -> None:
            await asyncio.sleep(60)

    monkeypatch.setattr("sojourn.plugins.ADMIT_TIMEOUT_SECONDS", 0.05)
    async with lab.ready(plugins=[Hang()]) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match=r"denied by plugin .*TimeoutError"):
            await orchestrator.acquire_lease(environment, lab.run())
    assert lab.leases() == []


async def test_every_plugin_has_to_admit(lab: Any) -> None:
    asked: list[str] = []

    class Allow:
        @hookimpl
        async def admit(self, operation: Any) -> None:
            asked.append("allow")

    async with lab.ready(plugins=[Allow(), Deny()]) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError):
            await orchestrator.acquire_lease(environment, lab.run())
    async with lab.ready(plugins=[Allow()]) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
    assert asked


# -- around -----------------------------------------------------------------------------------------------------------


class Trace:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    @hookimpl
    async def around(self, operation: Any, call_next: Any) -> Any:
        self.log.append(f"{self.name} > {operation.name}")
        answer = await call_next()
        self.log.append(f"{self.name} < {operation.name}")
        return answer


async def test_around_wraps_each_driver_call_once_and_in_order(lab: Any) -> None:
    """The last registered is outermost."""
    log: list[str] = []
    async with lab.session(orchestrating={"plugins": [Trace("a", log), Trace("b", log)]}) as (_, session):
        await session.execute(["true"])
    names = ["acquire", "target", "realize", "target", "execute", "release"]
    wanted = [f"{who} {name}" for name in names for who in ("b >", "a >", "a <", "b <")]
    assert log == wanted
    assert [lab.driver.count(hook) for hook in ("acquire", "realize", "execute", "release")] == [1, 1, 1, 1]


async def test_what_around_raises_counts_as_the_drivers_answer(lab: Any) -> None:
    """A driver error as it is, with its retries; a foreign one as a bug with unknown effect."""

    class Raise:
        error: BaseException = Unavailable("the policy server is away")
        calls = 0

        @hookimpl
        async def around(self, operation: Any, call_next: Any) -> Any:
            if operation.name == "acquire":
                self.calls += 1
                raise self.error
            return await call_next()

    plugin = Raise()
    async with lab.ready(plugins=[plugin]) as (orchestrator, environment):
        with pytest.raises(EnvironmentRunError, match="policy server") as failure:
            await orchestrator.acquire_lease(environment, lab.run())
        assert isinstance(failure.value.__cause__, Unavailable)
        assert plugin.calls == 5
        for number, error in enumerate((ValueError("odd"), SystemExit("bye"), asyncio.CancelledError())):
            plugin.error = error
            with pytest.raises(EnvironmentRunError, match=type(error).__name__) as failure:
                await orchestrator.acquire_lease(environment, lab.run(f"run-{number}"))
            assert isinstance(failure.value.__cause__, DriverBug)
    assert {row["status"] for row in lab.leases()} == {"failed"}
    assert lab.driver.count("acquire") == 0


async def test_a_foreign_error_of_around_at_release_leaves_the_lease_to_clean_up(lab: Any) -> None:
    class Raise:
        calls = 0

        @hookimpl
        async def around(self, operation: Any, call_next: Any) -> Any:
            if operation.name == "release":
                self.calls += 1
                if self.calls == 1:
                    raise ValueError("odd")
            return await call_next()

    async with lab.ready(plugins=[Raise()]) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        report = await orchestrator.release_for_run(lab.run())
        assert "odd" in str(report.errors[0].error)
        assert lab.lease()["status"] == "pending_cleanup"
        await orchestrator.reap(force=True)
    assert lab.lease()["status"] == "released"


async def test_no_secret_reaches_an_operation(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("BUILD_TOKEN", "hunter2-hunter2")
    seen: list[str] = []

    class Look:
        @hookimpl
        async def around(self, operation: Any, call_next: Any) -> Any:
            seen.append(repr(operation))
            return await call_next()

    async with lab.open(plugins=[Look()]) as orchestrator:
        await orchestrator.environments.create("build", "fake", {"token": "env:BUILD_TOKEN"})
        async with orchestrator.session(environment="build") as session:
            await session.execute(["say", "the-argument"], env={"X": Secret("env:BUILD_TOKEN")})
    text = "\n".join(seen)
    assert "hunter2" not in text
    assert "the-argument" not in text


# -- on_activity ------------------------------------------------------------------------------------------------------


async def test_an_activity_is_shown_after_its_commit(lab: Any) -> None:
    committed: list[bool] = []
    shown: list[Any] = []

    class Watch:
        @hookimpl
        def on_activity(self, event: Any) -> None:
            shown.append(event)
            committed.append(event.id in {row["id"] for row in lab.activities()})

    async with lab.session(orchestrating={"plugins": [Watch()]}):
        pass
    assert [event.action for event in shown] == ["environment.lease_acquired", "environment.lease_released"]
    assert committed == [True, True]


async def test_a_watcher_that_raises_is_muted_and_stops_nobody(lab: Any, caplog: Any) -> None:
    calls: list[str] = []

    class Bad:
        @hookimpl
        def on_activity(self, event: Any) -> None:
            calls.append("bad")
            raise ValueError("odd")

    class Good:
        @hookimpl
        def on_activity(self, event: Any) -> None:
            calls.append("good")

    async with lab.session(orchestrating={"plugins": [Good(), Bad()]}):
        pass
    assert sorted(calls) == ["bad", "good", "good"]
    assert "it is not called again" in caplog.text
    assert lab.lease()["status"] == "released"


async def test_a_watcher_that_exits_does_not_end_the_host(lab: Any) -> None:
    class Exit:
        @hookimpl
        def on_activity(self, event: Any) -> None:
            raise SystemExit("bye")

    async with lab.session(orchestrating={"plugins": [Exit()]}) as (_, session):
        assert (await session.execute(["true"])).ok
    assert lab.lease()["status"] == "released"


# -- secrets and adapters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_plugin_resolves_secrets_of_its_scheme(lab: Any, asynchronous: bool) -> None:
    asked: list[str] = []

    def answer(reference: str) -> str | None:
        asked.append(reference)
        return "from the vault" if reference.startswith("vault:") else None

    class Sync:
        @hookimpl
        def resolve_secret(self, reference: str) -> Any:
            return answer(reference)

    class Async:
        @hookimpl
        async def resolve_secret(self, reference: str) -> Any:
            return answer(reference)

    plugin = Async() if asynchronous else Sync()
    async with lab.open(plugins=[plugin]) as orchestrator:
        await orchestrator.environments.create("build", "fake", env={"TOKEN": Secret("vault:token")})
        async with orchestrator.session(environment="build") as session:
            assert (await session.execute(["printenv", "TOKEN"])).stdout == b"from the vault"
    assert set(asked) == {"vault:token"}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_host_applications_resolver_comes_first(lab: Any, asynchronous: bool) -> None:
    def resolve(reference: str) -> str | None:
        return "from the host" if reference == "env:TOKEN" else None

    async def resolve_later(reference: str) -> str | None:
        return resolve(reference)

    async with lab.open(secrets=[resolve_later if asynchronous else resolve]) as orchestrator:
        await orchestrator.environments.create("build", "fake", env={"TOKEN": Secret("env:TOKEN")})
        async with orchestrator.session(environment="build") as session:
            assert (await session.execute(["printenv", "TOKEN"])).stdout == b"from the host"


@pytest.mark.parametrize("late", [False, True])
async def test_a_resolver_that_fails_is_a_missing_secret_and_its_text_is_not_repeated(lab: Any, late: bool) -> None:
    """At the check nothing is written; later the row does not stay behind."""
    calls = 0

    def resolve(reference: str) -> str | None:
        nonlocal calls
        calls += 1
        if late and calls == 1:
            return "value"
        raise ConnectionError("vault says: hunter2-hunter2")

    async with lab.open(secrets=[resolve]) as orchestrator:
        environment = await orchestrator.environments.create("build", "fake", {"token": "vault:token"})
        with pytest.raises(EnvironmentRunError, match="vault:token") as failure:
            await orchestrator.acquire_lease(environment, lab.run())
        assert failure.value.code is ErrorCode.INVALID_CONFIG
        assert "hunter2" not in str(failure.value)
        assert "ConnectionError" in str(failure.value)
    assert [row["status"] for row in lab.leases()] == (["failed"] if late else [])
    assert "hunter2" not in lab.all_text()


async def test_a_plugin_names_adapters(lab: Any) -> None:
    class Names:
        @hookimpl
        def adapters(self) -> Any:
            return [AdapterSpec(type="editor", transports=frozenset({"ssh"}))]

    async with lab.ready(plugins=[Names()]) as (orchestrator, _):
        with pytest.raises(EnvironmentRunError) as failure:
            await orchestrator.resolve_environment("build", adapter="editor")
    assert failure.value.code is ErrorCode.UNSUPPORTED_ADAPTER_ENVIRONMENT


# -- loading ----------------------------------------------------------------------------------------------------------


async def test_a_plugin_that_cannot_be_loaded_is_an_error_and_not_skipped(lab: Any) -> None:
    """It may be the one that enforces a policy."""

    class Misspelled:
        @hookimpl
        async def admitt(self, operation: Any) -> None: ...

    with pytest.raises(SojournError, match=r"admitt.*Hooks of plugins are admit") as failure:
        async with lab.open(plugins=[Misspelled()]):
            pytest.fail("it was opened")
    assert "Misspelled" in str(failure.value)
