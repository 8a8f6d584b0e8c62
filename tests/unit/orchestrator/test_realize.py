"""Realize, provision and target: the records, the working directory, the details of a failure (behaviours 14 to 18)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn import wire
from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.hooks import hookimpl
from sojourn.models import (
    AcquireRequest,
    AcquireResult,
    CommandOutcome,
    LocalTarget,
    Outcome,
    RealizeRequest,
    RealizeResult,
    SandboxTarget,
    SshTarget,
    TargetRequest,
)
from sojourn.realization_records import Overlay, RealizationRequest, Workspace, read_record, read_request
from sojourn.targets import ExecutionTarget
from sojourn.testing import FakeDriver, Fault
from sojourn.variables import Variables


class Shaped(FakeDriver):
    """A fake driver with another transport, root or answer."""

    transport = "fake"
    acquired_cwd: str | None = None
    realized_cwd: str | None = None
    transfers: Any = ("in_place", "copy")
    requests: Any = None

    @hookimpl
    def driver_info(self) -> Any:
        return attrs.evolve(FakeDriver.driver_info(self), transport=self.transport, transfers=self.transfers)

    @hookimpl
    async def acquire(self, request: AcquireRequest) -> AcquireResult:
        return attrs.evolve(await FakeDriver.acquire(self, request), remote_cwd=self.acquired_cwd)

    @hookimpl
    async def realize(self, request: RealizeRequest) -> RealizeResult:
        self.requests = [*(self.requests or []), request]
        resource = self._resource(request)
        for cwd in (self.acquired_cwd, self.realized_cwd, request.local_path):
            resource.directories.add((cwd or "").strip())
        return RealizeResult(cwd=self.realized_cwd)

    @hookimpl
    def target(self, request: TargetRequest) -> Any:
        if self.transport == "local":
            return LocalTarget(cwd=request.cwd)
        if self.transport == "ssh":
            return SshTarget(host="h", port=22, username="u", cwd=request.cwd)
        return FakeDriver.target(self, request)


def shaped(lab: Any, **changes: Any) -> Shaped:
    driver = Shaped(world=lab.world)
    for name, value in changes.items():
        setattr(driver, name, value)
    return driver


# -- the records ------------------------------------------------------------------------------------------------------


async def test_the_request_records_what_was_asked(lab: Any, tmp_path: Path) -> None:
    """(behaviour 14) with the lease and with the execution workspace."""
    async with lab.ready() as (orchestrator, environment):
        await orchestrator.workspaces.create(workspace_id="ws-1", mode="isolated", metadata={"kept": 1})
        run = lab.run(issue_id="issue-7", execution_workspace_id="ws-1", execution_workspace_mode="shared")
        workspace = Workspace(
            local_path=str(tmp_path),
            kind="task_session",
            project_id="project-1",
            repo_url="https://example.org/r.git",
            repo_ref="main",
            additional=(Workspace(local_path="/docs", kind="agent_home"),),
        )
        overlay = Overlay(teardown="true", cleanup="true")
        acquired = await orchestrator.acquire_for_run(run, "build", adapter="editor")
        done = await orchestrator.realize_for_run(acquired, workspace, overlay=overlay)
        stored = lab.lease()["metadata"]
        request = read_request(stored["workspace_realization_request"])
        (workspace_row,) = lab.sql("SELECT * FROM execution_workspaces")
        kept = json.loads(workspace_row["metadata"])
    assert request == RealizationRequest(
        version=1,
        adapter="editor",
        tenant="default",
        environment_id=environment.id,
        execution_workspace_id="ws-1",
        issue_id="issue-7",
        run_id="run-1",
        requested_mode="isolated",
        transfer="in_place",
        source=workspace,
        overlay=overlay,
    )
    assert kept["kept"] == 1
    assert kept["workspace_realization_request"] == stored["workspace_realization_request"]
    assert kept["workspace_realization"] == stored["workspace_realization"]
    assert done.execution_workspace.metadata["kept"] == 1
    assert done.lease.metadata == stored
    assert "resolution" in stored, "the record is merged into what was there"


@pytest.mark.parametrize(
    ("stored", "called", "wanted"), [("isolated", "shared", "isolated"), (None, "shared", "shared")]
)
async def test_the_persisted_mode_stands_above_the_calls(lab: Any, stored: Any, called: str, wanted: str) -> None:
    """(behaviour 15)"""
    async with lab.ready() as (orchestrator, _):
        await orchestrator.workspaces.create(workspace_id="ws-1", mode=stored)
        run = lab.run(execution_workspace_id="ws-1", execution_workspace_mode=called)
        acquired = await orchestrator.acquire_for_run(run, "build")
        await orchestrator.realize_for_run(acquired)
        assert acquired.lease_context.execution_workspace_mode == wanted
        assert lab.lease()["metadata"]["workspace_realization_request"]["requested_mode"] == wanted


async def test_the_record_says_where_the_tree_is(lab: Any, tmp_path: Path) -> None:
    """(behaviour 15) built by the core, with one sentence for people."""
    async with lab.session(workspace=tmp_path) as (_, session):
        record = session.realization.workspace_realization
        assert read_record(lab.lease()["metadata"]["workspace_realization"]) == record
    assert (record.mode, record.authoritative_root, record.path_aliases) == ("in_place", str(tmp_path), {})
    assert record.local == {"path": str(tmp_path), "strategy": "project_primary", "branch": None, "worktree": None}
    assert record.remote == {"cwd": str(tmp_path), "transport": "fake"}
    assert record.rebuild == {"transfer": "in_place", "repo_url": None, "repo_ref": None}
    assert record.bootstrap is None
    assert record.summary.count(".") >= 1
    for part in (str(tmp_path), "in place", "build", "fake"):
        assert part in record.summary


async def test_in_place_the_authoritative_root_is_the_targets_cwd(lab: Any, tmp_path: Path) -> None:
    """(behaviour 17)"""
    async with lab.session(workspace=tmp_path) as (_, session):
        assert session.target.cwd == str(tmp_path) == session.realization.workspace_realization.authoritative_root
        assert session.realization.lease.remote_cwd == str(tmp_path)


async def test_another_root_is_an_alias_of_the_callers(lab: Any, tmp_path: Path) -> None:
    """(behaviour 15)"""
    driver = shaped(lab, transport="ssh", realized_cwd="/srv/tree")
    async with lab.session(driver, workspace=tmp_path) as (_, session):
        record = session.realization.workspace_realization
        assert (record.authoritative_root, record.path_aliases) == ("/srv/tree", {str(tmp_path): "/srv/tree"})
        assert session.realization.remote_execution == SshTarget(host="h", port=22, username="u", cwd="/srv/tree")
        assert session.acquisition.execution_transport == SshTarget(host="h", port=22, username="u", cwd=None)


async def test_realizing_again_gives_the_same_root(lab: Any, tmp_path: Path) -> None:
    async with lab.ready() as (orchestrator, _):
        acquired = await orchestrator.acquire_for_run(lab.run(), "build")
        first, second = [await orchestrator.realize_for_run(acquired, tmp_path) for _ in range(2)]
        assert first.workspace_realization == second.workspace_realization


GOOD = {
    "version": 1,
    "adapter": "command",
    "tenant": "default",
    "environment_id": "env_1",
    "execution_workspace_id": None,
    "issue_id": None,
    "run_id": "run-1",
    "requested_mode": None,
    "transfer": "copy",
    "source": {"local_path": "/tree"},
    "overlay": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"version": None},
        {"adapter": "  "},
        {"tenant": ""},
        {"environment_id": None},
        {"transfer": "carrier pigeon"},
        {"source": "/tree"},
        {"source": {"local_path": "/tree", "kind": "unheard-of"}},
    ],
)
def test_a_record_of_another_version_or_without_essentials_reads_as_none(change: dict[str, Any]) -> None:
    """(behaviour 14)"""
    assert read_request({**GOOD, **change}) is None


@pytest.mark.parametrize("data", [None, "", [], 7, {}, {"version": 1}])
def test_what_is_no_record_reads_as_none(data: Any) -> None:
    """(behaviour 14)"""
    assert read_request(data) is None
    assert read_record(data) is None


def test_blank_text_reads_as_none_and_unknown_keys_are_ignored() -> None:
    """(behaviour 14)"""
    stored = {
        **GOOD,
        "issue_id": "  ",
        "requested_mode": "",
        "a_later_field": 1,
        "overlay": {"provision": " make ", "teardown": "\n"},
        "source": {"local_path": " /tree ", "branch": "", "additional": [{"repo_url": " "}]},
    }
    request = read_request(stored)
    assert request is not None
    assert (request.issue_id, request.requested_mode) == (None, None)
    assert request.overlay == Overlay(provision="make")
    assert request.source == Workspace(local_path="/tree", additional=(Workspace(),))
    assert read_request(wire.dump(request)) == request


# -- the working directory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acquired", "realized", "remote_path", "cwd"),
    [
        ("/from/acquire", "/from/realize", "/from/acquire", "/from/realize"),
        ("/from/acquire", None, "/from/acquire", "/from/acquire"),
        ("/from/acquire", "  ", "/from/acquire", "/from/acquire"),
        (None, " /trimmed ", None, "/trimmed"),
        ("  ", "/from/realize", None, "/from/realize"),
    ],
)
async def test_the_cwd_is_the_drivers_answer_then_the_leases(
    lab: Any, acquired: Any, realized: Any, remote_path: Any, cwd: str
) -> None:
    """(behaviour 15) trimmed, and blank is none."""
    driver = shaped(lab, acquired_cwd=acquired, realized_cwd=realized)
    async with lab.session(driver) as (_, session):
        assert session.target.cwd == cwd
        assert lab.lease()["metadata"]["remote_cwd"] == cwd
        assert (await session.execute(["pwd"])).stdout.decode().strip() == cwd
    assert [request.remote_path for request in driver.requests] == [remote_path]


@pytest.mark.parametrize("answer", [None, " "])
async def test_no_cwd_at_all_is_a_failed_realization(lab: Any, answer: Any, tmp_path: Path) -> None:
    """(behaviour 15) on every transport but local."""
    with pytest.raises(EnvironmentRunError, match="no working directory") as failure:
        async with lab.session(shaped(lab, realized_cwd=answer), workspace=tmp_path):
            pytest.fail("it was realized")
    assert failure.value.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
    assert "Failed to realize workspace for environment 'build'" in str(failure.value)


async def test_on_transport_local_no_cwd_means_the_local_path(lab: Any, tmp_path: Path) -> None:
    """(behaviour 15) for the target, the record and the commands alike."""
    driver = shaped(lab, transport="local")
    async with lab.session(driver, workspace=tmp_path) as (_, session):
        assert session.target.cwd == str(tmp_path)
        assert session.realization.workspace_realization.authoritative_root == str(tmp_path)
        assert lab.lease()["metadata"]["remote_cwd"] == str(tmp_path)


async def test_a_copy_without_a_root_goes_nowhere(lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """(behaviour 15) least of all into the folder where the host happens to run."""
    source, here = tmp_path / "source", tmp_path / "here"
    source.mkdir()
    here.mkdir()
    (source / "file").write_text("x")
    monkeypatch.chdir(here)
    with pytest.raises(EnvironmentRunError, match="no working directory"):
        async with lab.session(shaped(lab, transport="local"), workspace=source, transfer="copy"):
            pytest.fail("it was realized")
    assert list(here.iterdir()) == []


async def test_a_driver_without_realize_gets_its_root_made(lab: Any) -> None:
    """(architecture 3.2) the default: ``mkdir -p`` under what acquire named."""

    class Bare(FakeDriver):
        realize = None  # type: ignore[assignment]

        @hookimpl
        async def acquire(self, request: AcquireRequest) -> AcquireResult:
            return attrs.evolve(await FakeDriver.acquire(self, request), remote_cwd="/made/for/it")

    async with lab.session(Bare(world=lab.world)) as (_, session):
        assert (await session.execute(["pwd"])).stdout == b"/made/for/it\n"


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    ["InvalidArgument", "Unavailable", "OutcomeUnknown", "Gone", "RuntimeError", "SystemExit", "CancelledError"],
)
async def test_a_realize_that_fails_names_environment_and_phase(lab: Any, error: str) -> None:
    """(behaviour 16) the lease is still held; the caller gives it back."""
    driver = lab.chaos(Fault(hook="realize", action="raise", error=error, message="the inner message"))
    async with lab.ready(driver) as (orchestrator, _):
        acquired = await orchestrator.acquire_for_run(lab.run(), "build")
        with pytest.raises(EnvironmentRunError, match="Failed to realize workspace for environment 'build'") as failure:
            await orchestrator.realize_for_run(acquired)
        assert failure.value.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
        assert failure.value.phase == "realize"
        assert failure.value.lease_id == acquired.lease.id
        assert lab.lease()["status"] == "active"
        assert driver.count("realize") == 1


@pytest.mark.parametrize("action", ["hang", "hang_ignoring_cancel"])
async def test_a_realize_that_hangs_meets_its_deadline(lab: Any, action: Any) -> None:
    driver = lab.chaos(Fault(hook="realize", action=action))
    orchestrating = {"settings": lab.settings(realize_timeout_seconds=0.2)}
    with pytest.raises(EnvironmentRunError, match=r"did not end within 0\.2 s"):
        async with lab.session(driver, orchestrating=orchestrating):
            pytest.fail("it was realized")
    assert lab.lease()["status"] == "failed"


@pytest.mark.parametrize("hook", ["realize", "release"])
async def test_the_environments_own_deadlines_stand_above_the_settings(lab: Any, hook: str) -> None:
    """(architecture 3.3)"""
    driver = lab.chaos(Fault(hook=hook, action="hang", calls=(1,)))
    async with lab.open(driver) as orchestrator:
        await orchestrator.environments.create("quick", "fake", timeouts={hook: 0.2})
        acquired = await orchestrator.acquire_for_run(lab.run(), "quick")
        if hook == "realize":
            with pytest.raises(EnvironmentRunError, match=r"did not end within 0\.2 s"):
                await orchestrator.realize_for_run(acquired)
        else:
            report = await orchestrator.release_for_run(lab.run())
            assert "did not end within 0.2 s" in str(report.errors[0].error)


async def test_a_workspace_that_is_not_there_is_refused_before_the_driver_is_asked(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, reason in (("nothing", "does not exist"), ("file", "is not a folder")):
        driver = lab.fake()
        with pytest.raises(EnvironmentRunError, match=reason) as failure:
            async with lab.session(driver, workspace=tmp_path / path):
                pytest.fail("it was realized")
        assert failure.value.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
        assert driver.count("realize") == 0


async def test_the_target_that_fails_after_realize_is_a_failed_transport(lab: Any) -> None:
    """(behaviour 17)"""
    driver = lab.chaos(Fault(hook="target", action="raise", error="Unsupported", calls=(2,)))
    with pytest.raises(EnvironmentRunError) as failure:
        async with lab.session(driver):
            pytest.fail("it was realized")
    assert (failure.value.code, failure.value.phase) == (ErrorCode.TRANSPORT_RESOLUTION_FAILED, "target")
    assert lab.lease()["status"] == "failed"


async def test_a_target_of_another_transport_than_announced_is_a_bug(lab: Any) -> None:
    """(behaviour 17) adapters were matched with what was announced."""

    class Lying(FakeDriver):
        @hookimpl
        def target(self, request: TargetRequest) -> Any:
            return LocalTarget(cwd=request.cwd)

    with pytest.raises(EnvironmentRunError, match="driver_info says 'fake'") as failure:
        async with lab.session(Lying(world=lab.world)):
            pytest.fail("it was acquired")
    assert failure.value.code is ErrorCode.TRANSPORT_RESOLUTION_FAILED


# -- identity ---------------------------------------------------------------------------------------------------------


def target(value: Any, **changes: Any) -> ExecutionTarget:
    ids = {"environment_id": "env_1", "lease_id": "lease_1", "driver": "d", "provider": "p", **changes}
    return ExecutionTarget(target=value, **ids)


def test_the_identity_of_an_ssh_place_is_where_it_is() -> None:
    """(behaviour 17) host, port, user and cwd; another lease of it is the same place."""
    ssh = SshTarget(host="h", port=22, username="u", cwd="/w")
    same = target(ssh).identity
    assert same == {"transport": "ssh", "host": "h", "port": 22, "username": "u", "cwd": "/w"}
    assert target(ssh, lease_id="lease_2").identity == same
    for change in ({"host": "i"}, {"port": 23}, {"username": "v"}, {"cwd": "/x"}):
        assert target(attrs.evolve(ssh, **change)).identity != same


def test_the_identity_of_a_sandbox_is_its_lease_too() -> None:
    """(behaviour 17) provider, environment, lease and cwd."""
    sandbox = SandboxTarget(provider="docker", cwd="/w")
    same = target(sandbox).identity
    assert target(sandbox).identity == same
    for change in ({"lease_id": "lease_2"}, {"environment_id": "env_2"}, {"provider": "q"}):
        assert target(sandbox, **change).identity != same
    assert target(attrs.evolve(sandbox, cwd="/x")).identity != same


# -- provision --------------------------------------------------------------------------------------------------------


class Provisioning(Shaped):
    """A driver whose shell ends as it is told, and counts."""

    outcome = CommandOutcome(outcome=Outcome.EXITED, exit_code=0)
    output: Any = ()
    ran = 0

    @hookimpl
    async def execute(self, request: Any, io: Any) -> CommandOutcome:
        self._note("execute", request)
        if request.argv[-1] != "set up":
            return CommandOutcome(outcome=Outcome.EXITED, exit_code=0)
        self.ran += 1
        for stream, data in self.output:
            await io.write(stream, data)
        return self.outcome


def provisioning(lab: Any, **changes: Any) -> Provisioning:
    driver = Provisioning(world=lab.world)
    for name, value in {"realized_cwd": "/work", **changes}.items():
        setattr(driver, name, value)
    return driver


def exited(code: int) -> CommandOutcome:
    return CommandOutcome(outcome=Outcome.EXITED, exit_code=code)


@pytest.mark.parametrize(
    ("outcome", "output", "detail"),
    [
        (CommandOutcome(outcome=Outcome.TIMED_OUT), [("stderr", b"x\n")], ": provision command timed out"),
        (exited(3), [("stdout", b"out\n"), ("stderr", b"first\nsecond\n")], ": exit code 3: first"),
        (exited(3), [("stdout", b"out\n")], ": exit code 3: out"),
        (exited(3), [("stderr", b" \r\n\t\r\n  the line  \r\nmore"), ("stdout", b"o")], ": exit code 3: the line"),
        (exited(3), [("stderr", b"\n \n"), ("stdout", b"\r\nfrom out\r\n")], ": exit code 3: from out"),
        (exited(3), [], ": exit code 3"),
        (exited(3), [("stderr", b"\xff bytes")], ": exit code 3: \ufffd bytes"),
        (
            CommandOutcome(outcome=Outcome.SIGNALED, exit_code=137, signal="SIGKILL"),
            [("stderr", b"oom")],
            ": exit code 137 (signal SIGKILL): oom",
        ),
        (CommandOutcome(outcome=Outcome.SIGNALED, exit_code=137, signal=" "), [], ": exit code 137"),
        (CommandOutcome(outcome=Outcome.LOST), [], ": exit code null"),
        (CommandOutcome(outcome=Outcome.LOST), [("stdout", b"half")], ": exit code null: half"),
    ],
)
async def test_a_failed_provision_says_why_in_one_line(lab: Any, outcome: Any, output: Any, detail: str) -> None:
    """(behaviour 16)"""
    driver = provisioning(lab, outcome=outcome, output=output)
    with pytest.raises(EnvironmentRunError) as failure:
        async with lab.session(driver, overlay=Overlay(provision="set up")):
            pytest.fail("it was provisioned")
    assert str(failure.value) == f"Failed to provision workspace for environment 'build'{detail}"
    assert (failure.value.code, failure.value.phase) == (ErrorCode.WORKSPACE_REALIZATION_FAILED, "provision")
    row = lab.lease()
    assert row["provision_fingerprint"] is None
    assert row["status"] == "failed"
    record = row["metadata"]["provision"]
    assert record["exit_code"] == outcome.exit_code
    assert record["fingerprint"] is None
    assert record["duration_seconds"] >= 0


async def test_a_provision_command_that_could_not_be_run_fails_the_provision(lab: Any) -> None:
    """(behaviour 16)"""
    driver = lab.chaos(Fault(hook="execute", action="raise", error="Unavailable", message="no shell"))
    with pytest.raises(EnvironmentRunError, match=r"Failed to provision .*no shell") as failure:
        async with lab.session(driver, overlay=Overlay(provision="set up")):
            pytest.fail("it was provisioned")
    assert failure.value.phase == "provision"


async def test_the_provision_run_is_recorded_with_exit_code_duration_and_tail(lab: Any) -> None:
    """(behaviour 16)"""
    output = [("stdout", b"x" * 10_000 + b"end of out"), ("stderr", b"end of err")]
    async with lab.session(provisioning(lab, output=output), overlay=Overlay(provision="set up")) as (_, session):
        record = session.realization.workspace_realization.bootstrap
        assert lab.lease()["provision_fingerprint"] == record.fingerprint
    assert (record.ran, record.exit_code) == (True, 0)
    assert record.output_tail.endswith("end of out\nend of err")
    assert len(record.output_tail) <= 4096


async def test_a_place_is_not_provisioned_twice_with_the_same_command(lab: Any) -> None:
    """(behaviour 16) and again with another, or after a failure."""
    driver = provisioning(lab, outcome=exited(1))
    async with lab.ready(driver) as (orchestrator, _):
        acquired = await orchestrator.acquire_for_run(lab.run(), "build")
        overlay = Overlay(provision="set up")
        with pytest.raises(EnvironmentRunError):
            await orchestrator.realize_for_run(acquired, overlay=overlay)
        driver.outcome = exited(0)
        first = await orchestrator.realize_for_run(acquired, overlay=overlay)
        second = await orchestrator.realize_for_run(acquired, overlay=overlay)
        assert driver.ran == 2
        assert first.workspace_realization.bootstrap.ran
        assert not second.workspace_realization.bootstrap.ran
        assert "before" in second.workspace_realization.bootstrap.reason
        await orchestrator.realize_for_run(acquired, overlay=Overlay(provision="other"))
        third = await orchestrator.realize_for_run(acquired, overlay=overlay)
        assert third.workspace_realization.bootstrap.ran


@pytest.mark.parametrize(
    ("transport", "transfer", "asked", "runs"),
    [
        ("local", "in_place", False, False),
        ("local", "in_place", True, True),
        ("ssh", "in_place", False, True),
        ("fake", "in_place", False, True),
    ],
)
async def test_the_callers_own_tree_is_provisioned_only_when_that_is_asked(
    lab: Any, tmp_path: Path, transport: str, transfer: Any, asked: bool, runs: bool
) -> None:
    """(behaviour 16; architecture 7)"""
    driver = provisioning(lab, transport=transport, realized_cwd=str(tmp_path))
    overlay = Overlay(provision="set up", provision_in_place=asked)
    async with lab.session(driver, workspace=tmp_path, transfer=transfer, overlay=overlay) as (_, session):
        assert session.realization.workspace_realization.bootstrap.ran is runs
        assert driver.ran == int(runs)
        assert bool(lab.lease()["provision_fingerprint"]) is runs


async def test_the_provision_command_gets_the_environments_own_time_limit(lab: Any) -> None:
    """(architecture 7) 300 s, the settings', or the environment's."""
    limits: list[Any] = []

    class Limited(Provisioning):
        @hookimpl
        async def execute(self, request: Any, io: Any) -> CommandOutcome:
            limits.append(request.timeout_seconds)
            return exited(0)

    driver = Limited(world=lab.world)
    driver.realized_cwd = "/work"
    async with lab.open(driver) as orchestrator:
        await orchestrator.environments.create("plain", "fake")
        await orchestrator.environments.create("quick", "fake", timeouts={"provision": 7.0})
        for name in ("plain", "quick"):
            acquired = await orchestrator.acquire_for_run(lab.run(name), name)
            await orchestrator.realize_for_run(acquired, overlay=Overlay(provision="set up"))
    assert limits == [300.0, 7.0]


# -- variables --------------------------------------------------------------------------------------------------------


async def test_variables_of_higher_layers_win(lab: Any, monkeypatch: Any) -> None:
    """(behaviour 18) environment, agent, project, run, the command's own; the host's never."""
    monkeypatch.setenv("HOST_ONLY", "leaked")
    async with lab.open() as orchestrator:
        names = ["E", "A", "P", "R", "C"]
        await orchestrator.environments.create("build", "fake", env=dict.fromkeys(names, "environment"))
        variables = Variables(
            agent=dict.fromkeys(names[1:], "agent"),
            project=dict.fromkeys(names[2:], "project"),
            run=dict.fromkeys(names[3:], "run"),
        )
        async with orchestrator.session(environment="build", variables=variables) as session:
            seen = {}
            for name in [*names, "HOST_ONLY", "PATH", "SOJOURN_RESOURCE_ID"]:
                seen[name] = (await session.execute(["printenv", name], env={"C": "command"})).stdout.decode()
            resource_id = session.lease.resource_id
    assert seen == {
        "E": "environment",
        "A": "agent",
        "P": "project",
        "R": "run",
        "C": "command",
        "HOST_ONLY": "",
        "PATH": "/bin",
        "SOJOURN_RESOURCE_ID": resource_id,
    }
