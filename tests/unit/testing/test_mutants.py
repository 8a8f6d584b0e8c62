"""The kit catches bad drivers: each of these breaks one promise, and the clauses about that promise fail, no others."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn.errors import Gone
from sojourn.hooks import hookimpl
from sojourn.models import (
    AcquireResult,
    CommandOutcome,
    CustomTarget,
    Outcome,
    RealizeResult,
    ReleaseReceipt,
    ResourceState,
)
from sojourn.resolvers import secrets_in
from sojourn.testing import Capabilities, DriverContract, FakeBackDoor, FakeDriver, FakePrograms, FakeWorld, Kit
from sojourn.testing.clauses import clauses_of
from sojourn.testing.fake import driver as fake_driver
from sojourn.testing.fake.running import FakeRun

# Run for every mutant besides those that have to fail, to see that they do not fail for the wrong reason.
CONTROLS = (
    "test_it_loads",
    "test_acquire_is_idempotent",
    "test_another_spec_is_a_conflict",
    "test_release_without_a_handle",
    "test_exit_status",
    "test_odd_words",
    "test_odd_values",
    "test_streams_stay_apart",
    "test_stdin",
)


def contract_of(make: Callable[[FakeWorld], object]) -> DriverContract:
    class Contract(DriverContract):
        capabilities = Capabilities(parallel=True, survives_restart=True, keeps_files=True, other_user="agent")
        programs = FakePrograms()
        unusable_config = {"usable": False}  # noqa: RUF012 - a constant

        def __init__(self) -> None:
            self.world = FakeWorld()

        def make_driver(self) -> object:
            return make(self.world)

        def make_config(self, tmp_path: Path) -> dict[str, object]:
            secret = tmp_path.with_name("token")
            secret.write_text("a secret of the contract", encoding="utf-8")
            return {"token": f"file:{secret}"}

        def back_door(self, tmp_path: Path) -> FakeBackDoor:
            return FakeBackDoor(self.world)

    return Contract()


def failure_of(make: Callable[[FakeWorld], object], name: str) -> BaseException | None:
    """Run one clause against a driver and return how it failed."""
    contract = contract_of(make)
    try:
        getattr(contract, name)(Kit(contract, pytest.skip))
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, it is what the test is about
        return error
    return None


class WrappedIO:
    """The live side of a command, with parts of it replaced."""

    def __init__(self, io: Any, **replaced: Any) -> None:
        self.stdin = replaced.get("stdin", io.stdin)
        self.stop = replaced.get("stop", io.stop)
        self.write = replaced.get("write", io.write)


class NeverStop:
    reason = None

    def is_set(self) -> bool:
        return False

    async def wait(self) -> None:
        await asyncio.Event().wait()


# -- the mutants ------------------------------------------------------------------------------------------------------


class SucceedsWhereNothingIs(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        try:
            return await super().execute(request, io)
        except Gone:
            return CommandOutcome(outcome=Outcome.EXITED, exit_code=0)


class PutsValuesIntoArgv(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        return await super().execute(attrs.evolve(request, argv=(*request.argv, *request.env.values())), io)


class IgnoresStop(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        return await super().execute(request, WrappedIO(io, stop=NeverStop()))


class IgnoresTheTimeLimit(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        return await super().execute(attrs.evolve(request, timeout_seconds=None), io)


class MixesStreams(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        async def write(stream, data):
            await io.write("stdout", data)

        return await super().execute(request, WrappedIO(io, write=write))


class MakesTextOfBytes(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        async def write(stream, data):
            await io.write(stream, data.decode("utf-8", "replace").encode())

        return await super().execute(request, WrappedIO(io, write=write))


class HoldsOutputUntilTheEnd(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        held = []

        async def write(stream, data):
            held.append((stream, bytes(bytearray(data))))

        outcome = await super().execute(request, WrappedIO(io, write=write))
        for stream, data in held:
            await io.write(stream, data)
        return outcome


class DropsStdin(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        return await super().execute(request, WrappedIO(io, stdin=None))


class StripsOutput(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        async def write(stream, data):
            await io.write(stream, data.rstrip(b"\n"))

        return await super().execute(request, WrappedIO(io, write=write))


class ReleasesOnlyOnce(FakeDriver):
    @hookimpl
    async def release(self, request):
        if request.resource_id not in self.world.resources:
            raise Gone("there is nothing to release")
        return await super().release(request)


class NeedsTheHandle(FakeDriver):
    @hookimpl
    async def release(self, request):
        if request.handle is None:
            return ReleaseReceipt(state=ResourceState.GONE)
        return await super().release(request)


class ReleasesWithoutEndingProcesses(FakeDriver):
    @hookimpl
    async def release(self, request):
        if request.resource_id in self.world.resources:
            self.world.resources[request.resource_id].processes = []
        return await super().release(request)


class ReleasesForAnybody(FakeDriver):
    @hookimpl
    async def release(self, request):
        resource = self.world.resources.get(request.resource_id)
        if resource is not None:
            resource.installation_id = request.installation_id
        return await super().release(request)


class IgnoresTheSpec(FakeDriver):
    @hookimpl
    async def acquire(self, request):
        if request.resource_id in self.world.resources:
            self.world.resources[request.resource_id].spec = request.spec
        return await super().acquire(request)


class MakesANewHandleEveryTime(FakeDriver):
    numbers = itertools.count()

    @hookimpl
    async def acquire(self, request):
        result = await super().acquire(request)
        return attrs.evolve(result, handle={**result.handle, "number": next(self.numbers)})


class PutsTheSecretIntoTheHandle(FakeDriver):
    @hookimpl
    async def acquire(self, request):
        result: AcquireResult = await super().acquire(request)
        return attrs.evolve(result, handle={**result.handle, "token": request.config.token.reveal()})


class KnowsOnlyItsOwnResources(FakeDriver):
    @hookimpl
    async def release(self, request):
        if not self.count("acquire"):
            return ReleaseReceipt(state=ResourceState.GONE)
        return await super().release(request)


class ListsEverybodys(FakeDriver):
    @hookimpl
    async def inventory(self, request):
        found = []
        for installation in {resource.installation_id for resource in self.world.resources.values()}:
            found += await super().inventory(attrs.evolve(request, installation_id=installation))
        return found


class RaisesFromProbe(FakeDriver):
    @hookimpl
    async def probe(self, request):
        report = await super().probe(request)
        if not report.ok:
            raise Gone("cannot be used")
        return report


class MovesTheRoot(FakeDriver):
    numbers = itertools.count()

    @hookimpl
    async def realize(self, request):
        root = f"/work-{next(self.numbers)}"
        self.world.resources[request.resource_id].directories.add(root)
        return RealizeResult(cwd=root)


class GivesAnotherTargetEveryTime(FakeDriver):
    numbers = itertools.count()

    @hookimpl
    def target(self, request):
        return CustomTarget(transport="fake", cwd=request.cwd, facts={"number": next(self.numbers)})


class TakesAnyUser(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        return await super().execute(attrs.evolve(request, user=None), io)


class TakesAnyDirectory(FakeDriver):
    def _cwd(self, resource, cwd):
        return cwd or "/work"


class ShowsItsOwnVariables(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        return await super().execute(attrs.evolve(request, env={**os.environ, **request.env}), io)


class RunsTwice(FakeDriver):
    numbers = itertools.count()

    @hookimpl
    async def execute(self, request, io):
        return await super().execute(attrs.evolve(request, exec_id=f"{request.exec_id}-{next(self.numbers)}"), io)


class RunsOneAtATime(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        resource = self.world.resources.get(request.resource_id)
        if resource is None:
            return await super().execute(request, io)
        lock = self.__dict__.setdefault("_locks", {}).setdefault(request.resource_id, asyncio.Lock())
        async with lock:
            return await super().execute(request, io)


class TruncatesTheStatus(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        outcome = await super().execute(request, io)
        code = outcome.exit_code
        return outcome if code is None else attrs.evolve(outcome, exit_code=min(code, 127))


class CallsAKillATimeOut(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        outcome = await super().execute(request, io)
        if outcome.outcome is Outcome.SIGNALED and outcome.signal == "SIGKILL":
            return CommandOutcome(outcome=Outcome.TIMED_OUT, kill_confirmed=True)
        return outcome


class RemembersTheConfigObject(FakeDriver):
    """Works as long as every call brings the very object that acquire brought."""

    @hookimpl
    async def acquire(self, request):
        self.__dict__.setdefault("config", request.config)
        return await super().acquire(request)

    @hookimpl
    async def release(self, request):
        return await super().release(request)

    @hookimpl
    async def execute(self, request, io):
        if request.config is not self.__dict__.get("config", request.config):
            raise Gone("another config")
        return await super().execute(request, io)


class LetsFormerHoldersIn(FakeDriver):
    def _check(self, resource, request):
        resource.epoch = 0
        super()._check(resource, request)


class WaitsForBackgroundChildren(FakeDriver):
    @hookimpl
    async def execute(self, request, io):
        outcome = await super().execute(request, io)
        resource = self.world.resources.get(request.resource_id)
        while resource is not None and resource.living():
            await asyncio.sleep(0.01)
        return outcome


HELD = ("test_output_comes_while_the_command_runs", "test_a_slow_reader_holds_the_command_back", "test_much_output")
MUTANTS: dict[type[FakeDriver], set[str]] = {
    SucceedsWhereNothingIs: {"test_nothing_runs_where_nothing_is", "test_nothing_runs_where_it_vanished"},
    PutsValuesIntoArgv: {"test_values_and_stdin_are_in_no_argv"},
    IgnoresStop: {"test_stop", "test_a_cancelled_caller_ends_the_tree"},
    IgnoresTheTimeLimit: {"test_time_out"},
    MixesStreams: {"test_streams_stay_apart"},
    MakesTextOfBytes: {"test_binary_output", "test_stdin"},
    HoldsOutputUntilTheEnd: {
        "test_output_comes_while_the_command_runs",
        "test_a_slow_reader_holds_the_command_back",
        "test_much_output",
    },
    DropsStdin: {"test_stdin"},
    StripsOutput: {"test_streams_stay_apart", "test_stdin", "test_odd_values"},
    ReleasesOnlyOnce: {"test_release_is_idempotent", "test_release_of_an_unknown_id", "test_release_after_it_vanished"},
    NeedsTheHandle: {"test_release_without_a_handle"},
    ReleasesWithoutEndingProcesses: {"test_a_daemon_does_not_survive_the_release"},
    ReleasesForAnybody: {"test_another_installation_cannot_destroy_it"},
    IgnoresTheSpec: {"test_another_spec_is_a_conflict"},
    MakesANewHandleEveryTime: {"test_acquire_is_idempotent"},
    PutsTheSecretIntoTheHandle: {"test_no_secret_in_what_is_stored"},
    KnowsOnlyItsOwnResources: {"test_another_process_releases_it"},
    ListsEverybodys: {"test_the_inventory_is_of_one_installation"},
    RaisesFromProbe: {"test_a_probe_says_no_and_does_not_raise"},
    MovesTheRoot: {"test_realize_twice_gives_the_same_root"},
    GivesAnotherTargetEveryTime: {"test_target_is_pure"},
    TakesAnyUser: {"test_an_unknown_user_is_refused"},
    TakesAnyDirectory: {"test_a_missing_cwd_is_refused", "test_an_error_shows_no_value"},
    ShowsItsOwnVariables: {"test_our_own_variables_stay_here"},
    RunsTwice: {"test_one_exec_id_is_one_run", "test_one_exec_id_at_once_is_one_run"},
    RunsOneAtATime: {"test_ten_at_once_take_the_time_of_one"},
    TruncatesTheStatus: {"test_exit_status"},
    CallsAKillATimeOut: {"test_death_by_signal", "test_a_command_that_kills_itself_is_no_time_out"},
    RemembersTheConfigObject: {*CONTROLS}
    - {"test_it_loads", "test_acquire_is_idempotent", "test_release_without_a_handle"},
    LetsFormerHoldersIn: {"test_a_former_holder_is_refused"},
    WaitsForBackgroundChildren: {"test_a_background_child_does_not_hold_the_call"},
}


@pytest.mark.parametrize(("driver", "broken"), MUTANTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_driver_fails_the_clauses_about_what_it_breaks(driver: type[FakeDriver], broken: set[str]):
    names = {*broken, *CONTROLS}
    failures = {name: failure_of(lambda world: driver(world=world), name) for name in sorted(names)}
    assert {name for name, error in failures.items() if error is not None} == broken, failures


def test_every_clause_that_is_named_exists():
    assert {*CONTROLS, *set().union(*MUTANTS.values())} <= {clause.name for clause in clauses_of(DriverContract)}


def test_a_tree_that_is_only_half_ended_is_seen(monkeypatch: pytest.MonkeyPatch):
    """A driver that ends the main process only, and says that all is gone, is caught by the back door."""

    class Half(FakeRun):
        async def _end(self, grace_seconds: float) -> bool:
            self._processes[0].kill()
            await asyncio.sleep(0.01)
            return True

    monkeypatch.setattr(fake_driver, "FakeRun", Half)
    for name in ("test_time_out_ends_the_tree", "test_stop"):
        assert isinstance(failure_of(lambda world: FakeDriver(world=world), name), AssertionError)


def test_an_unconfirmed_end_is_not_enough(monkeypatch: pytest.MonkeyPatch):
    class Unsure(FakeRun):
        async def _end(self, grace_seconds: float) -> bool:
            await super()._end(grace_seconds)
            return False

    monkeypatch.setattr(fake_driver, "FakeRun", Unsure)
    assert "not confirmed" in str(failure_of(lambda world: FakeDriver(world=world), "test_time_out"))


def test_a_config_with_a_secret_is_what_the_secret_clauses_see(tmp_path: Path):
    """Otherwise they would have nothing to look for."""
    contract = contract_of(lambda world: FakeDriver(world=world))
    config = fake_driver.FakeConfig(**json.loads(json.dumps(contract.make_config(tmp_path / "config"))))
    assert isinstance(config.token, str)
    assert not list(secrets_in(config))
