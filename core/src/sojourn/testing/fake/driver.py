"""The hooks of the fake driver: complete, in memory, and the same answers as a real one where the contract says which."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import attrs

import sojourn
from sojourn.errors import Conflict, Gone, InvalidArgument, OutcomeUnknown, Refused, Unavailable
from sojourn.hooks import hookimpl
from sojourn.models import (
    AcquireRequest,
    AcquireResult,
    CommandIO,
    CommandOutcome,
    ConnectionInfo,
    ConnectionRequest,
    CustomTarget,
    Diagnostic,
    Disposition,
    DriverInfo,
    ExecuteRequest,
    HookRequest,
    InventoryItem,
    InventoryRequest,
    Outcome,
    ProbeReport,
    ProbeRequest,
    RealizeRequest,
    RealizeResult,
    ReleaseReceipt,
    ReleaseRequest,
    ResourceRequest,
    ResourceState,
    ResumeRequest,
    TargetRequest,
)
from sojourn.secrets import Secret
from sojourn.testing.fake.programs import BUILT_IN
from sojourn.testing.fake.running import FakeRun
from sojourn.testing.fake.world import ROOT, FakeProgram, FakeResource, FakeWorld

__all__ = ["FakeCall", "FakeConfig", "FakeDriver"]

BASE_ENV = {"PATH": "/bin", "HOME": "/root", "LANG": "C.UTF-8"}


@attrs.frozen(kw_only=True)
class FakeConfig:
    """The configuration of a fake environment.

    Args:
        label: any text; for configs that differ.
        token: a secret that nothing needs.
        usable: what a probe says.
        users: whom commands may run as, besides ``root``.
    """

    label: str = ""
    token: Secret | None = None
    usable: bool = True
    users: tuple[str, ...] = ("agent",)


@attrs.frozen(kw_only=True)
class FakeCall:
    """One call of a hook, for assertions. No config, env, argv or output is in it."""

    hook: str
    resource_id: str | None = None
    lease_id: str | None = None
    epoch: int | None = None
    exec_id: str | None = None
    disposition: Disposition | None = None


class FakeDriver:
    """A driver whose resources, files and processes are objects in memory.

    Args:
        programs: what commands can run besides the built-in programs, by the first word of argv. Each gets a `FakeCommand`
            and returns its exit status; None is a file that is not executable.
        world: where its resources live; two drivers with one world are two processes with one provider.
        name: the driver's name.
    """

    def __init__(
        self,
        programs: Mapping[str, FakeProgram | None] | None = None,
        world: FakeWorld | None = None,
        name: str = "fake",
    ) -> None:
        self.world = world if world is not None else FakeWorld()
        self.calls: list[FakeCall] = []
        self._programs: dict[str, FakeProgram | None] = {**BUILT_IN, **(programs or {})}
        self._name = name

    def count(self, hook: str) -> int:
        """Return how often ``hook`` was called."""
        return sum(call.hook == hook for call in self.calls)

    @hookimpl
    def driver_info(self) -> DriverInfo:
        """Say what this driver is."""
        return DriverInfo(
            name=self._name,
            version=sojourn.__version__,
            provider="fake",
            isolation="none",
            transport="fake",
            config_class=FakeConfig,
            transfers=("in_place", "copy"),
            fencing=True,
            late_effects=False,
            real_processes=False,
        )

    @hookimpl
    async def probe(self, request: ProbeRequest) -> ProbeReport:
        """Answer what the config says."""
        self._note("probe", request)
        if request.config.usable:
            return ProbeReport(ok=True, summary="the fake provider is usable")
        problem = Diagnostic(level="error", message="the config says that it is not usable", hint="set usable to true")
        return ProbeReport(ok=False, summary="the fake provider is not usable", diagnostics=(problem,))

    @hookimpl
    async def acquire(self, request: AcquireRequest) -> AcquireResult:
        """Make the resource, or find it."""
        self._note("acquire", request)
        await asyncio.sleep(0)
        with self.world.lock:
            resource = self.world.resources.get(request.resource_id)
            if resource is None:
                resource = self.world.resources[request.resource_id] = FakeResource(
                    installation_id=request.installation_id,
                    resource_id=request.resource_id,
                    labels=request.labels,
                    spec=request.spec,
                    created_epoch=request.epoch,
                    epoch=request.epoch,
                    started=self.world.started,
                )
            self._check(resource, request)
            if resource.spec != request.spec:
                raise Conflict(f"resource {request.resource_id} exists with another spec")
        return self._result(resource, ROOT if request.transfer == "copy" else None)

    @hookimpl
    async def resume(self, request: ResumeRequest) -> AcquireResult:
        """Take a kept or stopped resource up again."""
        self._note("resume", request)
        resource = self._resource(request)
        resource.state = ResourceState.RUNNING
        return self._result(resource, ROOT)

    @hookimpl
    async def realize(self, request: RealizeRequest) -> RealizeResult:
        """Give the caller's own path (in place), or the folder in the resource."""
        self._note("realize", request)
        resource = self._resource(request)
        if request.transfer == "in_place" and request.local_path is not None:
            if not os.path.isdir(request.local_path):  # noqa: PTH112 - one look at a local disk
                raise InvalidArgument(f"workspace {request.local_path!r} is not a directory")
            resource.local_path = request.local_path
            return RealizeResult(cwd=request.local_path)
        if request.clean:
            resource.files = {path: data for path, data in resource.files.items() if not path.startswith(f"{ROOT}/")}
        return RealizeResult(cwd=ROOT)

    @hookimpl
    def target(self, request: TargetRequest) -> CustomTarget:
        """Give the transport facts."""
        return CustomTarget(transport="fake", cwd=request.cwd, facts={"resource_id": request.resource_id})

    @hookimpl
    async def execute(self, request: ExecuteRequest, io: CommandIO) -> CommandOutcome:
        """Run a program."""
        self._note("execute", request)
        resource = self._resource(request)
        if resource.state is not ResourceState.RUNNING:
            raise Unavailable(f"resource {request.resource_id} is stopped")
        cwd = self._cwd(resource, request.cwd)
        if request.user not in (None, "root", *request.config.users):
            raise InvalidArgument(f"there is no user {request.user!r}")
        known = resource.runs.get(request.exec_id)
        if known is not None:
            return await asyncio.wrap_future(known)
        env = {**BASE_ENV, **request.env, "SOJOURN_RESOURCE_ID": request.resource_id}
        run = FakeRun(resource, request, io, self._programs, cwd, env)
        return await self._recorded(resource, request.exec_id, run)

    async def _recorded(self, resource: FakeResource, exec_id: str, run: FakeRun) -> CommandOutcome:
        record: Future[CommandOutcome] = Future()
        # A second caller that is cancelled must not cancel it.
        record.set_running_or_notify_cancel()
        resource.runs[exec_id] = record
        try:
            outcome = await run.run()
        except BaseException:
            record.set_exception(OutcomeUnknown(f"the first caller of command {exec_id} did not see its end"))
            raise
        if self.world.resources.get(resource.resource_id) is not resource:
            outcome = CommandOutcome(outcome=Outcome.LOST, detail="the resource vanished while the command ran")
        record.set_result(outcome)
        return outcome

    @hookimpl
    async def release(self, request: ReleaseRequest) -> ReleaseReceipt:
        """End all processes, and forget the resource when it is to be destroyed."""
        self._note("release", request)
        resource = self.world.resources.get(request.resource_id)
        if resource is None:
            return ReleaseReceipt(state=ResourceState.GONE)
        self._check(resource, request)
        await resource.end_processes()
        if request.disposition is Disposition.DESTROY:
            self.world.resources.pop(request.resource_id, None)
            return ReleaseReceipt(state=ResourceState.GONE)
        resource.state = ResourceState.STOPPED if request.disposition is Disposition.STOP else ResourceState.RUNNING
        return ReleaseReceipt(state=resource.state, handle=request.handle)

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> list[InventoryItem]:
        """List the installation's resources."""
        self._note("inventory", request)
        with self.world.lock:
            return [
                InventoryItem(
                    resource_id=resource.resource_id,
                    created_epoch=resource.created_epoch,
                    created_at=resource.created_at,
                    state="stopped" if resource.state is ResourceState.STOPPED else "running",
                )
                for resource in self.world.resources.values()
                if resource.labels["sojourn.installation"] == request.installation_id
            ]

    @hookimpl
    async def connection(self, request: ConnectionRequest) -> ConnectionInfo:
        """Give a command that nobody can run."""
        self._note("connection", request)
        self._resource(request)
        return ConnectionInfo(command=("fake-attach", request.resource_id))

    @hookimpl
    async def close(self) -> None:
        """Drop nothing: there are no connections."""
        self.calls.append(FakeCall(hook="close"))

    # -- looking things up --------------------------------------------------------------------------------------------

    def _result(self, resource: FakeResource, remote_cwd: str | None) -> AcquireResult:
        return AcquireResult(
            handle={"version": 1, "resource": resource.resource_id},
            provider_lease_id=f"fake://{resource.resource_id}",
            remote_cwd=remote_cwd,
        )

    def _resource(self, request: ResourceRequest) -> FakeResource:
        resource = self.world.resources.get(request.resource_id)
        if resource is None:
            raise Gone(f"resource {request.resource_id} does not exist")
        self._check(resource, request)
        return resource

    def _check(self, resource: FakeResource, request: ResourceRequest) -> None:
        if resource.installation_id != request.installation_id:
            raise Conflict(f"resource {request.resource_id} belongs to another installation")
        if request.epoch < resource.epoch:
            raise Refused(f"resource {request.resource_id} is held under epoch {resource.epoch}, not {request.epoch}")
        resource.epoch = request.epoch

    def _cwd(self, resource: FakeResource, cwd: str | None) -> str:
        if cwd is None:
            return resource.local_path or ROOT
        local = resource.local_path
        if cwd in resource.directories or (local and cwd.startswith(local) and os.path.isdir(cwd)):  # noqa: PTH112
            return cwd
        raise InvalidArgument(f"working directory {cwd!r} does not exist")

    def _note(self, hook: str, request: HookRequest) -> None:
        facts: dict[str, Any] = {
            field.name: getattr(request, field.name, None) for field in attrs.fields(FakeCall) if field.name != "hook"
        }
        self.calls.append(FakeCall(hook=hook, **facts))
