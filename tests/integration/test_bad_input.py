"""Bad input: each is one clear error with the right code, nothing is left behind, and the lease row tells the truth."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn import (
    EnvironmentRunError,
    ErrorCode,
    Lease,
    LeaseStatus,
    Orchestrator,
    Outcome,
    RunContext,
    SchemaMismatch,
    Settings,
    StoreCorrupt,
    StoreError,
    StoreUnwritable,
    Variables,
)
from sojourn.realization_records import Workspace
from sojourn.testing.chaos import ChaosDriver, Fault
from sojourn.testing.fake.driver import FakeDriver
from sojourn_local import LocalDriver

IMPATIENT = Settings(
    acquire_timeout_seconds=0.3,
    realize_timeout_seconds=0.3,
    release_timeout_seconds=0.3,
    abandon_after_seconds=0.2,
    late_effect_seconds=0.1,
    acquire_tries=2,
    retry_seconds=0.01,
    grace_seconds=0.2,
)
SETUP_FAILED = 125
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and changing the user need root")


class Ground:
    """A store, a root for the local driver, a source tree, and a look at what is left of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.store = folder / "store" / "sojourn.db"
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "file.txt").write_text("content\n")
        (self.source / "folder").mkdir()

    @asynccontextmanager
    async def open(self, **arguments: Any) -> AsyncIterator[Orchestrator]:
        """Open an orchestrator whose environment ``here`` runs on the local driver."""
        async with Orchestrator.open(self.store, **{"settings": IMPATIENT, **arguments}) as orchestrator:
            if not any(found.name == "here" for found in await orchestrator.environments.list(include_archived=True)):
                await orchestrator.environments.create("here", "local", {"root": str(self.root)})
            yield orchestrator

    async def refused(self, orchestrator: Orchestrator, **arguments: Any) -> EnvironmentRunError:
        """Run a session that must not come about; returns the error."""
        with pytest.raises(EnvironmentRunError) as caught:
            async with orchestrator.session(**{"environment": "here", "workspace": str(self.source), **arguments}):
                pytest.fail("the session came about")
        return caught.value

    def nothing_left(self) -> bool:
        """Neither a place nor a worktree."""
        return not [*self.root.glob("*"), *(self.folder / "state" / "sojourn" / "worktrees").glob("*")]

    def command_line(self, *words: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
        """Run ``sojourn`` as a process of its own."""
        command = [sys.executable, "-m", "sojourn", "--store", str(self.store), *words]
        defaults = {"cwd": self.source, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(command, check=False, timeout=60, **{**defaults, **arguments})

    def one_line(self, done: subprocess.CompletedProcess[str], *, status: int = SETUP_FAILED) -> str:
        """Check that the process failed in one line on stderr; returns it."""
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        (line,) = done.stderr.splitlines()
        assert "bug of sojourn" not in line
        return line


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """A fresh ground; the state directory is its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SOJOURN_STORE", raising=False)
    return Ground(tmp_path)


def without_privileges() -> None:
    """Make permissions count in this child also when it is root's: the capabilities that override them are dropped."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; takes effect with the exec that follows


async def leases(orchestrator: Orchestrator) -> list[Lease]:
    return await orchestrator.leases.list()


# -- environments -----------------------------------------------------------------------------------------------------


def test_an_unknown_environment(ground: Ground) -> None:
    async def go() -> None:
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, environment="nowhere")
            assert error.code is ErrorCode.ENVIRONMENT_NOT_FOUND
            assert "'nowhere'" in str(error)
            assert "here" in str(error)
            assert await leases(orchestrator) == []

    asyncio.run(go())
    assert ground.nothing_left()
    assert "'nowhere'" in ground.one_line(ground.command_line("run", "--env", "nowhere", "--", "true"))


def test_an_archived_environment(ground: Ground) -> None:
    async def go() -> None:
        async with ground.open() as orchestrator:
            await orchestrator.environments.archive("here")
            error = await ground.refused(orchestrator)
            assert error.code is ErrorCode.ENVIRONMENT_INACTIVE
            assert "'here'" in str(error)
            assert "archived" in str(error)
            assert await leases(orchestrator) == []

    asyncio.run(go())
    assert "archived" in ground.one_line(ground.command_line("run", "--env", "here", "--", "true"))


def test_an_environment_of_another_tenant(ground: Ground) -> None:
    """By id its existence is told, for the caller knew it; nothing else is."""

    async def go() -> None:
        async with ground.open(tenant="theirs") as theirs:
            foreign = await theirs.environments.get("here")
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, environment=foreign.id)
            assert error.code is ErrorCode.ENVIRONMENT_NOT_FOUND
            assert "does not belong" in str(error)
            assert "theirs" not in str(error)
            assert str(ground.root) not in str(error)
            assert await leases(orchestrator) == []

    asyncio.run(go())
    assert ground.nothing_left()


# -- drivers that are not there or not right --------------------------------------------------------------------------

PACKAGES = {
    "broken_import": ("import a_library_that_is_not_there", "ModuleNotFoundError"),
    "exits_at_import": ("raise SystemExit(3)", "SystemExit"),
    "misspells": ("class Driver(Good):\n    @hookimpl\n    def relase(self, request): ...\n", "relase"),
    "unmarked": ("class Driver(Good):\n    def release(self, request): ...\n", "not marked with @hookimpl"),
    "lacks_one": ("class Driver(Good):\n    release = None\n", "release"),
    "says_nonsense": ("class Driver(Good):\n    @hookimpl\n    def driver_info(self): return 'me'\n", "driver_info"),
    "another_name": ("class Driver(Good):\n    name = 'else'\n", "must be equal"),
    "old_contract": ("class Driver(Good):\n    api = '0.1'\n", "driver api 0.1"),
}
GOOD = """
import attrs
from sojourn import AcquireResult, CommandOutcome, CustomTarget, DriverInfo, ReleaseReceipt, hookimpl
from sojourn import API_VERSION

@attrs.frozen
class Config: ...

class Good:
    name = __name__
    api = API_VERSION
    @hookimpl
    def driver_info(self):
        return DriverInfo(name=self.name, version="1", provider="x", isolation="none", transport="x", config_class=Config,
                          api_version=self.api)
    @hookimpl
    def acquire(self, request): return AcquireResult()
    @hookimpl
    def execute(self, request, io): return CommandOutcome(outcome="exited", exit_code=0)
    @hookimpl
    def release(self, request): return ReleaseReceipt(state="gone")
    @hookimpl
    def target(self, request): return CustomTarget(transport="x", cwd=None, facts={})

class Driver(Good): ...

"""


def install(folder: Path, name: str, code: str, *, value: str | None = None, distribution: str | None = None) -> None:
    """Put a package with a driver's entry point where ``PYTHONPATH`` finds it."""
    folder.mkdir(exist_ok=True)
    distribution = distribution or f"sojourn-{name.replace('_', '-')}"
    (folder / f"{name}.py").write_text(GOOD + code)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sojourn.drivers]\n{name} = {value or f'{name}:Driver'}\n")


def test_installed_drivers_that_are_broken_are_listed_and_stand_in_nobodys_way(ground: Ground) -> None:
    packages = ground.folder / "packages"
    for name, (code, _) in PACKAGES.items():
        install(packages, name, code)
    install(packages, "fine", "")
    install(packages, "twice", "")
    install(packages, "twice", "", value="fine:Driver", distribution="another-twice")
    environment = os.environ | {"PYTHONPATH": str(packages)}

    listed = ground.command_line("drivers", "--json", env=environment)
    found = {entry["name"]: entry for entry in json.loads(listed.stdout)}
    for name, (_, reason) in PACKAGES.items():
        assert found[name]["status"] == "broken"
        assert reason in found[name]["reason"]
    for name in ("exits_at_import", "twice"):
        done = ground.command_line("env", "add", "x", "--driver", name, env=environment)
        assert found[name]["reason"] in ground.one_line(done, status=1)
    assert "another-twice" in found["twice"]["reason"]
    assert "sojourn-twice" in found["twice"]["reason"]
    assert found["fine"]["status"] == "ok"
    assert found["local"]["status"] == "ok"
    assert ground.command_line("run", "--", "true", env=environment).returncode == 0


def test_a_driver_that_is_not_installed(ground: Ground) -> None:
    async def go() -> None:
        async with ground.open(drivers={"fake": FakeDriver()}) as orchestrator:
            await orchestrator.environments.create("there", "fake", {})
            with pytest.raises(EnvironmentRunError) as caught:
                await orchestrator.environments.create("nowhere", "nonesuch", {})
            assert caught.value.code is ErrorCode.DRIVER_UNAVAILABLE
            assert "pip install sojourn-nonesuch" in str(caught.value)
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, environment="there")
            assert error.code is ErrorCode.DRIVER_UNAVAILABLE
            assert await leases(orchestrator) == []

    asyncio.run(go())
    assert "pip install sojourn-fake" in ground.one_line(ground.command_line("run", "--env", "there", "--", "true"))


def test_a_driver_that_was_removed_while_a_lease_was_active(ground: Ground) -> None:
    """The lease waits for it, and says so; with the driver back it is cleaned up."""
    driver = FakeDriver()

    async def go() -> None:
        async with ground.open(
            drivers={"fake": driver}, settings=attrs.evolve(IMPATIENT, release_on_close=False)
        ) as first:
            await first.environments.create("there", "fake", {})
            await first.acquire_for_run(RunContext(tenant="default", run_id="r", agent_id=None), "there")
        async with ground.open() as orchestrator:
            report = await orchestrator.reap()
            assert [item.result for item in report.pending] == ["pending"]
            (lease,) = await leases(orchestrator)
            assert lease.status is LeaseStatus.PENDING_CLEANUP
            assert "no driver named 'fake'" in (lease.last_error or "")
        async with ground.open(drivers={"fake": driver}) as orchestrator:
            await orchestrator.reap(force=True)
            (lease,) = await leases(orchestrator)
            assert lease.status.terminal
            assert not driver.world.resources

    asyncio.run(go())


# -- drivers that misbehave -------------------------------------------------------------------------------------------

HANGS = ("hang", "hang_ignoring_cancel")
BASE_EXCEPTIONS = ("SystemExit", "BaseException", "GeneratorExit", "CancelledError", "RecursionError")


def faults(hook: str) -> list[Fault]:
    """Every way to misbehave that is tried on a hook, before and after its effect."""
    hangs = [Fault(hook=hook, action=action, calls=(1, 2)) for action in HANGS]  # type: ignore[arg-type]
    raises = [
        Fault(hook=hook, action="raise", error=error, when=when, calls=(1, 2))  # type: ignore[arg-type]
        for error in BASE_EXCEPTIONS
        for when in ("before", "after")
    ]
    garbage = [Fault(hook=hook, action="garbage", garbage=kind, when="after") for kind in ("none", "wrong_type")]  # type: ignore[arg-type]
    return hangs + raises + garbage


def describe(fault: Fault) -> str:
    return f"{fault.hook}-{fault.action}-{fault.when}-{fault.error or fault.garbage}"


async def there(ground: Ground, driver: ChaosDriver, work: Callable[[Orchestrator], Any]) -> None:
    """Do ``work`` with an environment of the fake driver; afterwards one sweep or two must have ended every lease."""
    async with ground.open(drivers={"fake": driver}) as orchestrator:
        await orchestrator.environments.create("there", "fake", {})
        await work(orchestrator)
        driver.faults.clear()
        until = time.monotonic() + 5
        while not all(lease.status.terminal for lease in await leases(orchestrator)):
            assert time.monotonic() < until, [(lease.status, lease.last_error) for lease in await leases(orchestrator)]
            await asyncio.sleep(0.05)
            await orchestrator.reap(force=True)
        assert not driver.inner.world.resources
        # The core serves on.
        async with orchestrator.session(environment="there") as session:
            assert (await session.execute(["true"])).ok


@pytest.mark.parametrize("fault", faults("acquire"), ids=describe)
def test_a_driver_that_misbehaves_in_acquire(ground: Ground, fault: Fault) -> None:
    async def work(orchestrator: Orchestrator) -> None:
        error = await ground.refused(orchestrator, environment="there", workspace=None)
        assert error.code is ErrorCode.LEASE_ACQUIRE_FAILED
        assert "'there'" in str(error)
        assert "fake: acquire" in str(error)
        (lease,) = await leases(orchestrator)
        assert lease.status in (LeaseStatus.PENDING_CLEANUP, LeaseStatus.FAILED)
        assert lease.outcome == "failed"
        assert lease.failure_reason

    asyncio.run(there(ground, ChaosDriver(FakeDriver(), [fault]), work))


@pytest.mark.parametrize("fault", faults("realize"), ids=describe)
def test_a_driver_that_misbehaves_in_realize(ground: Ground, fault: Fault) -> None:
    async def work(orchestrator: Orchestrator) -> None:
        error = await ground.refused(orchestrator, environment="there", workspace=None)
        assert error.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
        assert "fake: realize" in str(error)
        (lease,) = await leases(orchestrator)
        assert lease.status is LeaseStatus.FAILED

    asyncio.run(there(ground, ChaosDriver(FakeDriver(), [fault]), work))


@pytest.mark.parametrize("fault", faults("execute")[1:], ids=describe)
def test_a_driver_that_misbehaves_in_execute_loses_the_command(ground: Ground, fault: Fault) -> None:
    """Never a success, never run again."""
    driver = ChaosDriver(FakeDriver(), [fault])

    async def work(orchestrator: Orchestrator) -> None:
        async with orchestrator.session(environment="there") as session:
            result = await session.execute(["true"], timeout_seconds=0.2 if fault.action in HANGS else None)
            assert result.outcome is Outcome.LOST
            assert result.exit_code is None
            assert not result.ok
        assert driver.count("execute") == 1
        (lease,) = await leases(orchestrator)
        assert lease.status is LeaseStatus.FAILED

    asyncio.run(there(ground, driver, work))


@pytest.mark.parametrize("fault", faults("release"), ids=describe)
def test_a_driver_that_misbehaves_in_release(ground: Ground, fault: Fault) -> None:
    """The run's own end is not touched; the lease is not said to be over before that is proven."""

    async def work(orchestrator: Orchestrator) -> None:
        async with orchestrator.session(environment="there") as session:
            assert (await session.execute(["true"])).ok
        assert session.release_report is not None
        (trouble,) = session.release_report.errors
        assert "fake: release" in str(trouble.error)
        (lease,) = await leases(orchestrator)
        assert lease.status is LeaseStatus.PENDING_CLEANUP
        assert "fake: release" in (lease.last_error or "")

    asyncio.run(there(ground, ChaosDriver(FakeDriver(), [fault]), work))


@pytest.mark.parametrize("hook", ["acquire", "realize"])
def test_a_blocking_hook_that_hangs_holds_nobody_up(ground: Ground, hook: str) -> None:
    """A plain ``def`` runs in a thread; what it makes after it was given up is found and removed."""
    driver = ChaosDriver(LocalDriver(), [Fault(hook=hook, action="hang", seconds=3.0, calls=(1,))])

    async def go() -> None:
        async with ground.open(drivers={"local": driver}) as orchestrator:
            started = time.monotonic()
            error = await ground.refused(orchestrator, transfer="copy")
            assert time.monotonic() - started < 2.7
            assert f"local: {hook} did not end within 0.3 s" in str(error)
            async with orchestrator.session(environment="here", transfer="copy") as session:
                assert (await session.execute(["true"])).ok
            await asyncio.sleep(max(0, started + 3.4 - time.monotonic()))
            await orchestrator.reap(force=True)
            assert all(lease.status.terminal for lease in await leases(orchestrator))

    asyncio.run(go())
    assert ground.nothing_left()


# -- configuration ----------------------------------------------------------------------------------------------------

CONFIGS = [
    ({"rooot": "/x"}, "environments.bad.config.rooot"),
    ({"root": 5}, "environments.bad.config.root"),
    ({"root": "relative"}, "environments.bad.config.root"),
    ({"allow_unsafe_root": "false"}, "environments.bad.config.allow_unsafe_root"),
    ({"pass_env": "PATH"}, "environments.bad.config.pass_env"),
    ({"pass_env": ["NAME=hunter2"]}, "environments.bad.config.pass_env"),
    ({"release_grace_seconds": 1e9}, "environments.bad.config.release_grace_seconds"),
    ({"release_grace_seconds": float("nan")}, "environments.bad.config.release_grace_seconds"),
]


@pytest.mark.parametrize(("config", "path"), CONFIGS)
def test_a_configuration_that_is_wrong(ground: Ground, config: dict[str, Any], path: str) -> None:
    async def go() -> None:
        async with ground.open() as orchestrator:
            with pytest.raises(EnvironmentRunError) as caught:
                await orchestrator.environments.create("bad", "local", config)
            assert caught.value.code is ErrorCode.INVALID_CONFIG
            assert str(caught.value).startswith(path)
            assert "hunter2" not in str(caught.value)
            assert [found.name for found in await orchestrator.environments.list()] == ["here"]

    asyncio.run(go())


def test_a_stored_configuration_that_does_not_fit_any_more(ground: Ground) -> None:
    async def go() -> None:
        async with ground.open() as orchestrator:
            with sqlite3.connect(ground.store) as connection:
                connection.execute(
                    """UPDATE environments SET config = '{"root": "/x", "old": 1}' WHERE name = 'here'"""
                )
            connection.close()
            error = await ground.refused(orchestrator)
            assert error.code is ErrorCode.INVALID_CONFIG
            assert "environments.here.config.old" in str(error)
            assert await leases(orchestrator) == []

    asyncio.run(go())


def test_a_secret_that_has_no_value(ground: Ground) -> None:
    done = ground.command_line("run", "--secret", "TOKEN=env:NOT_SET_ANYWHERE", "--", "true")
    assert "NOT_SET_ANYWHERE" in ground.one_line(done)


# -- workspaces -------------------------------------------------------------------------------------------------------

MODES = ("in_place", "copy", "git_worktree")


def as_mode(mode: str, path: str) -> dict[str, Any]:
    strategy = "git_worktree" if mode == "git_worktree" else "project_primary"
    workspace = Workspace(local_path=path, strategy=strategy)  # type: ignore[arg-type]
    return {"workspace": workspace, "transfer": "copy" if mode == "copy" else "in_place"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["missing", "file.txt", "file.txt/inside", "loop", "nul\0nul", "x" * 5000])
def test_a_workspace_that_is_none(ground: Ground, mode: str, path: str) -> None:
    (ground.source / "loop").symlink_to("loop")

    async def go() -> None:
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, **as_mode(mode, f"{ground.source}/{path}"))
            assert error.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
            assert error.phase == "realize"
            (lease,) = await leases(orchestrator)
            assert lease.status is LeaseStatus.FAILED
            assert lease.failure_reason == str(error)

    asyncio.run(go())
    assert ground.nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_the_root_of_the_machine_is_no_workspace(ground: Ground, mode: str) -> None:
    line = ground.one_line(ground.command_line("run", "--mode", mode, "--workspace", "/", "--", "true"))
    assert "/: " in line or "'/'" in line
    assert "/proc" not in line


def test_the_home_directory_is_no_workspace_in_place(ground: Ground) -> None:
    home = ground.folder / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home)}
    done = ground.command_line("run", "--workspace", str(home), "--", "true", env=environment)
    assert "home directory" in ground.one_line(done)


@pytest.mark.parametrize("mode", MODES)
def test_a_workspace_that_cannot_be_read(ground: Ground, mode: str) -> None:
    ground.source.chmod(0)
    try:
        done = ground.command_line(
            *("run", "--mode", mode, "--workspace", str(ground.source), "--", "true"),
            preexec_fn=without_privileges,
            cwd=ground.folder,
        )
        line = ground.one_line(done)
        assert str(ground.source) in line
        assert "Permission denied" in line or "may not enter" in line
    finally:
        ground.source.chmod(0o700)


def test_a_file_in_the_workspace_that_cannot_be_read(ground: Ground) -> None:
    (ground.source / "file.txt").chmod(0)
    done = ground.command_line("run", "--mode", "copy", "--", "true", preexec_fn=without_privileges)
    assert "file.txt" in ground.one_line(done)


def test_a_pipe_in_the_workspace(ground: Ground) -> None:
    os.mkfifo(ground.source / "pipe")
    assert "pipe" in ground.one_line(ground.command_line("run", "--mode", "copy", "--", "true"))
    assert ground.command_line("run", "--", "true").returncode == 0


# -- commands ---------------------------------------------------------------------------------------------------------

COMMANDS: list[tuple[Any, dict[str, Any], str]] = [
    ([], {}, "argv is empty"),
    ([""], {}, "argv is empty"),
    ("echo hello", {}, "argv is one string"),
    (b"echo", {}, "argv is one string"),
    (["echo", "a\0b"], {}, r"argv\[1\] holds a NUL"),
    (["echo", 5], {}, r"argv\[1\] is int"),
    (["echo", "\ud800"], {}, "argument 1|argv"),
    (["echo", "x" * 4_000_000], {}, "longer than the system allows"),
    (["true"], {"env": {"A": "x\0y"}}, "variable A holds a NUL"),
    (["true"], {"env": {"A": "\ud800"}}, "A"),
    (["true"], {"env": {"1A": "x"}}, "'1A' does not match"),
    (["true"], {"env": {"A=B": "x"}}, "'A=B' does not match"),
    (["true"], {"env": {"": "x"}}, "'' does not match"),
    (["true"], {"env": {"A\n": "x"}}, "does not match"),
    (["true"], {"env": {"A": 5}}, "A"),
    (["true"], {"env": {"SOJOURN_RESOURCE_ID": "x"}}, "reserved"),
    (["true"], {"cwd": "missing"}, "missing"),
    (["true"], {"cwd": "/missing/too"}, "/missing/too"),
    (["true"], {"cwd": "file.txt"}, "file.txt"),
    (["true"], {"cwd": "a\0b"}, "NUL"),
    (["true"], {"user": "nobody-knows"}, "nobody-knows"),
    (["true"], {"timeout_seconds": 0}, "timeout_seconds is 0"),
    (["true"], {"timeout_seconds": -1}, "timeout_seconds is -1"),
    (["true"], {"timeout_seconds": float("nan")}, "timeout_seconds is nan"),
]


def test_commands_that_cannot_be_run_as_asked(ground: Ground) -> None:
    """Each is an error of its own, and the session can be used afterwards."""

    async def go() -> None:
        async with ground.open() as orchestrator:
            async with orchestrator.session(environment="here", workspace=str(ground.source)) as session:
                for argv, arguments, message in COMMANDS:
                    with pytest.raises(EnvironmentRunError, match=message) as caught:
                        await session.execute(argv, **arguments)
                    assert caught.value.code is ErrorCode.EXECUTION_FAILED, (argv, arguments)
                    assert "hello" not in str(caught.value), "an argument is repeated in an error"
                assert (await session.execute(["pwd"], cwd="folder")).stdout == f"{ground.source}/folder\n".encode()
                assert (await session.execute(["surely-not-a-program"])).exit_code == 127
                assert (await session.execute(["./file.txt"])).exit_code == 126
            (lease,) = await leases(orchestrator)
            assert lease.status is LeaseStatus.RELEASED

    asyncio.run(go())
    assert ground.nothing_left()


@pytest.mark.parametrize("name", ["SOJOURN_RESOURCE_ID", "1A", "A=B", ""])
def test_variables_that_cannot_be_set_are_refused_before_anything_is_leased(ground: Ground, name: str) -> None:
    async def go() -> None:
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, variables=Variables(run={name: "hunter2"}))
            assert error.code is ErrorCode.INVALID_CONFIG
            assert "run.env" in str(error)
            assert "hunter2" not in str(error)
            assert await leases(orchestrator) == []

    asyncio.run(go())


# -- stores -----------------------------------------------------------------------------------------------------------


def refuses(ground: Ground, kind: type[StoreError], message: str, *, at_the_command_line: bool = False) -> None:
    """The store cannot be opened."""

    async def go() -> None:
        with pytest.raises(kind, match=message):
            async with Orchestrator.open(ground.store):
                pytest.fail("the store was opened")

    asyncio.run(go())
    if at_the_command_line:
        assert str(ground.store) in ground.one_line(ground.command_line("run", "--", "true"))


def test_a_store_that_is_a_directory(ground: Ground) -> None:
    ground.store.mkdir(parents=True)
    refuses(ground, StoreUnwritable, "is a directory")


def test_a_store_that_is_no_database(ground: Ground) -> None:
    ground.store.parent.mkdir()
    ground.store.write_text("this is a letter to a friend\n" * 100)
    before = ground.store.read_bytes()
    refuses(ground, StoreCorrupt, "is not a database", at_the_command_line=True)
    assert ground.store.read_bytes() == before


def test_a_store_that_is_damaged(ground: Ground) -> None:
    async def make() -> None:
        async with ground.open():
            pass

    asyncio.run(make())
    with ground.store.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(ground.store.stat().st_size - 4096))
    refuses(ground, StoreCorrupt, "damaged")


def test_a_store_of_a_newer_version(ground: Ground) -> None:
    async def make() -> None:
        async with ground.open():
            pass

    asyncio.run(make())
    with sqlite3.connect(ground.store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refuses(ground, SchemaMismatch, "newer")


def test_a_store_whose_directory_everybody_may_write(ground: Ground) -> None:
    ground.store.parent.mkdir()
    ground.store.parent.chmod(0o777)
    refuses(ground, StoreUnwritable, "chmod o-w")


@pytest.mark.parametrize("exists", [True, False])
def test_a_store_that_may_not_be_written(ground: Ground, exists: bool) -> None:
    if exists:
        assert ground.command_line("run", "--", "true").returncode == 0
        ground.store.chmod(0o400)
    else:
        ground.store.parent.mkdir()
    ground.store.parent.chmod(0o500)
    try:
        line = ground.one_line(ground.command_line("run", "--", "true", preexec_fn=without_privileges))
        assert str(ground.store) in line
        assert "Permission denied" in line or "readonly" in line
    finally:
        ground.store.parent.chmod(0o700)


@needs_root
def test_a_store_of_another_user(ground: Ground) -> None:
    """Everything is imported before the change of the user, who may have no right to read this interpreter."""
    assert ground.command_line("run", "--", "true").returncode == 0
    code = f"""
        import asyncio, os
        from sojourn.store import Store
        from sojourn.store import migrate, engine
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            asyncio.run(Store.open({str(ground.store)!r}))
        except Exception as error:
            print(type(error).__name__, error)
    """
    for mode in (0o711, 0o700):
        # An existing file in a directory that may be entered, then one in a directory that may not.
        for folder in (ground.store.parent, ground.folder, ground.folder.parent, ground.folder.parent.parent):
            folder.chmod(mode)
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("StoreUnwritable"), done.stdout
        assert "another user" in done.stdout or "Permission denied" in done.stdout


# -- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to the last byte."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


@needs_root
def test_a_store_on_a_full_disk(ground: Ground, small_disk: Path) -> None:
    ground.store = small_disk / "sojourn.db"
    filler = fill(small_disk)
    refuses(ground, StoreUnwritable, "no space")
    filler.unlink()
    assert ground.command_line("run", "--", "true").returncode == 0


@needs_root
def test_a_disk_that_fills_up_during_a_run(ground: Ground, small_disk: Path) -> None:
    """The command's own end is told; what could not be written is put right by a sweep once there is space again."""
    ground.store = small_disk / "sojourn.db"
    assert ground.command_line("run", "--", "true").returncode == 0
    done = ground.command_line(
        "run", "--mode", "copy", "--", "sh", "-c", f"cat /dev/zero > {small_disk}/filler; exit 7"
    )
    assert done.returncode == 7
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    (small_disk / "filler").unlink()
    assert ground.command_line("reap").returncode == 0
    listed = json.loads(ground.command_line("lease", "list", "--all", "--json").stdout)
    assert {lease["status"] for lease in listed["leases"]} <= {"released", "failed", "expired"}
    assert not [*(ground.folder / "state" / "sojourn" / "local").glob("*")]


@needs_root
def test_the_local_drivers_root_on_a_full_disk(ground: Ground, small_disk: Path) -> None:
    ground.root = small_disk / "root"
    # Inodes run out too: a directory of a tmpfs takes no block.
    subprocess.run(["mount", "-o", "remount,size=64k,nr_inodes=2", str(small_disk)], check=True)

    async def go() -> None:
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, transfer="copy")
            assert error.code is ErrorCode.LEASE_ACQUIRE_FAILED
            assert "No space left" in str(error)
            assert error.retryable
            (lease,) = await leases(orchestrator)
            assert lease.status is LeaseStatus.FAILED

    asyncio.run(go())
    assert ground.nothing_left()


@needs_root
def test_a_workspace_that_does_not_fit(ground: Ground, small_disk: Path) -> None:
    ground.root = small_disk / "root"
    (ground.source / "large").write_bytes(b"x" * 2_000_000)

    async def go() -> None:
        async with ground.open() as orchestrator:
            error = await ground.refused(orchestrator, transfer="copy")
            assert error.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
            assert error.phase == "transfer"
            assert "large" in str(error)
            assert "No space left" in str(error)
            (lease,) = await leases(orchestrator)
            assert lease.status is LeaseStatus.FAILED
            # There is room again.
            async with orchestrator.session(environment="here", transfer="copy") as session:
                assert (await session.execute(["true"])).ok

    asyncio.run(go())
    assert ground.nothing_left()


# -- many at once -----------------------------------------------------------------------------------------------------

EIGHT_SESSIONS = """
    import asyncio, sys
    from sojourn import Orchestrator

    async def one(orchestrator, number):
        async with orchestrator.session(environment="here", transfer="copy") as session:
            result = await session.execute(["echo", str(number)])
            assert result.stdout.decode().split() == [str(number)], result
        assert not session.release_report.errors, session.release_report

    async def go():
        async with Orchestrator.open(sys.argv[1]) as orchestrator:
            await asyncio.gather(*(one(orchestrator, number) for number in range(8)))

    asyncio.run(go())
"""


def test_two_processes_use_one_store_with_eight_sessions_each(ground: Ground) -> None:
    async def make() -> None:
        async with ground.open():
            pass

    asyncio.run(make())
    command = [sys.executable, "-c", textwrap.dedent(EIGHT_SESSIONS), str(ground.store)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said

    async def look() -> None:
        async with ground.open() as orchestrator:
            found = await leases(orchestrator)
            assert [lease.status for lease in found] == [LeaseStatus.RELEASED] * 16
            assert len({lease.resource_id for lease in found}) == 16

    asyncio.run(look())
    assert ground.nothing_left()
