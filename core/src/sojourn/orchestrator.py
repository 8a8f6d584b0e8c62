"""The orchestrator: resolve, acquire, realize, execute, release, each step by itself or all of them as a session."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypedDict, Unpack

import attrs

from sojourn import acquiring, doctor, probing, reaping, releasing, resolution
from sojourn.doctor import Health
from sojourn.drivers import DriverRegistry
from sojourn.errors import SojournError, StoreError, WrongContext
from sojourn.explanation import Explanation, explain
from sojourn.hosts import this_process
from sojourn.ids import new_id
from sojourn.models import Actor, Disposition, ProbeReport, RunContext, SshTarget, Transfer
from sojourn.plugins import Plugins
from sojourn.realization import realize
from sojourn.realization_records import Overlay, RealizationRecord, Workspace
from sojourn.records import (
    ActivityEvent,
    AdapterSpec,
    Environment,
    ExecutionWorkspace,
    Holder,
    Lease,
    LeaseOutcome,
    LeasePolicy,
)
from sojourn.releasing import Ending, ReleaseReport
from sojourn.resolution import LevelTrace, Resolution, Selection
from sojourn.resolvers import Resolve, SecretResolver
from sojourn.runtime import HeldLease, Runtime, agent_or
from sojourn.session import AttachedLease, Session
from sojourn.settings import Settings
from sojourn.store import Store, activity, clock, holders, workspaces
from sojourn.stored_environments import Environments
from sojourn.stored_leases import Leases
from sojourn.stored_workspaces import ExecutionWorkspaces
from sojourn.targets import ExecutionTarget, resolve_target
from sojourn.variables import Variables

__all__ = ["Acquisition", "LeaseContext", "LeaseTerms", "Orchestrator", "Realization"]

COMMAND = AdapterSpec(type="command")


@attrs.frozen(kw_only=True)
class LeaseContext:
    """Which execution workspace a lease works for, and its mode."""

    execution_workspace_id: str | None
    execution_workspace_mode: str | None


@attrs.frozen(kw_only=True)
class Acquisition:
    """A lease that a run holds, and how it came to it. ``execution_transport``: the ssh facts, where it is ssh."""

    environment: Environment
    lease: Lease
    lease_context: LeaseContext
    execution_transport: SshTarget | None
    resolution: Resolution


@attrs.frozen(kw_only=True)
class Realization:
    """A realized workspace. ``remote_execution``: the ssh facts with the working directory, where it is ssh."""

    lease: Lease
    workspace_realization: RealizationRecord
    target: ExecutionTarget
    remote_execution: SshTarget | None
    execution_workspace: ExecutionWorkspace | None


class LeaseTerms(TypedDict, total=False):
    """What a caller may ask of a lease, beyond where and for whom.

    Args:
        adapter: what will run there; ``command`` by default, and an adapter that nobody registered runs anywhere.
        policy: what becomes of the place when the run is over; None is the environment's.
        transfer: how the workspace will get there, ``copy`` or ``in_place``; None is the driver's default.
        variables: over the environment's own.
        lease_key: tells several leases of one run apart.
        expires_at: when the lease ends at the latest; None is the setting.
        require_expiry: give the lease back unless the provider itself ends the place by then.
        actor: who asks; None is the run's agent, else the operator.
    """

    adapter: str
    policy: LeasePolicy | None
    transfer: Transfer | None
    variables: Variables | None
    lease_key: str
    expires_at: datetime | None
    require_expiry: bool
    actor: Actor | None


class Orchestrator:
    """Gives runs their places. Made by `open`; belongs to the event loop, thread and process that opened it.

    Attributes:
        environments: create, get, list and update stored environments.
        workspaces: the same for execution workspaces.
        leases: look at leases, extend, release or destroy one.
        drivers: which drivers there are.
    """

    def __init__(self, runtime: Runtime) -> None:
        """Use `open`."""
        self._runtime = runtime
        runtime.check = self._check
        self._home = (os.getpid(), threading.get_ident(), asyncio.get_running_loop())
        self._closed = False
        self._adapters = {spec.type: spec for spec in runtime.plugins.adapters()}
        self.environments = Environments(runtime, self._check)
        self.workspaces = ExecutionWorkspaces(runtime, self._check)
        self.leases = Leases(runtime, self._check)
        self.drivers = runtime.drivers

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        store: str | os.PathLike[str] | Store | None = None,
        *,
        tenant: str = "default",
        drivers: Mapping[str, Any] | None = None,
        plugins: Iterable[Any] = (),
        secrets: Iterable[Resolve] = (),
        settings: Settings | None = None,
    ) -> AsyncIterator[Orchestrator]:
        """Open an orchestrator; leaving the block gives back the leases it still holds.

        Args:
            store: a path, an SQLAlchemy URL, an open `Store` (which stays open), or None for ``SOJOURN_STORE``, else
                ``sojourn.db`` in the state directory.
            tenant: whose environments and leases.
            drivers: driver objects by name, over the installed ones.
            plugins: plugin objects, after the installed ones.
            secrets: resolvers of the host application: called with a reference, answer its value or None.
            settings: deadlines and limits.

        Raises:
            StoreError: the store cannot be opened.
            SojournError: an installed plugin cannot be loaded.
        """
        settings = settings or Settings()
        loaded = Plugins(plugins)
        opened = store if isinstance(store, Store) else await Store.open(store)
        try:
            runtime = Runtime(
                store=opened,
                drivers=DriverRegistry(drivers, settings),
                plugins=loaded,
                secrets=SecretResolver(loaded, secrets),
                settings=settings,
                tenant=tenant,
                holder_id=await opened.run(_register_holder),
            )
            orchestrator = cls(runtime)
            try:
                yield orchestrator
            finally:
                await orchestrator._close()
        finally:
            if opened is not store:
                await opened.close()

    @property
    def store(self) -> Store:
        """The store, for reading what no method here answers."""
        return self._runtime.store

    def register_adapter(self, spec: AdapterSpec) -> None:
        """Name an adapter and the transports it can run over. One that nobody named runs anywhere."""
        self._check()
        self._adapters[spec.type] = spec

    # -- resolve ------------------------------------------------------------------------------------------------------

    async def resolve_environment(
        self,
        selection: Selection | str | None = None,
        *,
        adapter: str = "command",
        execution_workspace_id: str | None = None,
    ) -> Resolution:
        """Say which environment a selection means, and why.

        Args:
            selection: what each level says; a text is ``Selection(requested=...)``; None is the tenant's default, else local.
            adapter: what will run there.
            execution_workspace_id: whose stored choice counts where the selection's is silent.

        Raises:
            EnvironmentRunError: ``environment_not_found``, ``environment_inactive``, ``driver_unavailable`` or
                ``unsupported_adapter_environment``; nothing is leased.
        """
        found = await self._resolve(selection, adapter, execution_workspace_id, ensure=True)
        driver = self._runtime.drivers.get(found.environment.driver)
        resolution.fits(found.adapter, found.environment, driver.info.transport)
        return found

    async def _resolve(
        self, selection: Selection | str | None, adapter: str, execution_workspace_id: str | None, *, ensure: bool
    ) -> Resolution:
        self._check()
        if not isinstance(selection, Selection):
            selection = Selection(requested=selection)
        spec = self._adapters.get(adapter, AdapterSpec(type=adapter))
        store = self._runtime.store
        wanted = (self._runtime.tenant, selection, execution_workspace_id, spec)
        # Reading first: only a tenant's very first run has something to write, and writers wait for each other.
        found = await store.read(resolution.choose, *wanted, ensure=False)
        return (
            await store.run(resolution.choose, *wanted, ensure=True) if ensure and not found.environment.id else found
        )

    async def explain(
        self,
        selection: Selection | str | None = None,
        *,
        adapter: str = "command",
        workspace: Workspace | str | os.PathLike[str] | None = None,
        transfer: Transfer | None = None,
        overlay: Overlay | None = None,
        variables: Variables | None = None,
        policy: LeasePolicy | None = None,
        execution_workspace_id: str | None = None,
    ) -> Explanation:
        """Say what a run with these arguments would do, and what would stop it; changes nothing.

        Raises:
            EnvironmentRunError: ``environment_not_found``, ``environment_inactive`` or ``driver_unavailable``.
        """
        found = await self._resolve(selection, adapter, execution_workspace_id, ensure=False)
        return await explain(
            self._runtime,
            found,
            workspace=_workspace(workspace),
            transfer=transfer,
            overlay=overlay or Overlay(),
            variables=variables or Variables(),
            policy=policy or found.environment.policy,
        )

    async def probe(self, environment: Environment | str, *, actor: Actor | None = None) -> ProbeReport:
        """Ask whether a stored environment is usable now; creates nothing and does not raise for an unusable one.

        Raises:
            EnvironmentRunError: ``environment_not_found`` or ``driver_unavailable``.
        """
        self._check()
        if isinstance(environment, str):
            environment = await self.environments.get(environment)
        return await probing.probe(self._runtime, environment, actor or Actor(type="operator"))

    async def probe_draft(
        self, driver: str, config: Mapping[str, Any], *, name: str = "draft", actor: Actor | None = None
    ) -> ProbeReport:
        """Ask whether a config would be usable, before it is stored; nothing is recorded.

        Raises:
            EnvironmentRunError: ``driver_unavailable``.
        """
        self._check()
        return await probing.probe_draft(self._runtime, name, driver, config, actor or Actor(type="operator"))

    # -- acquire ------------------------------------------------------------------------------------------------------

    async def acquire_lease(self, environment: Environment, run: RunContext, **terms: Unpack[LeaseTerms]) -> Lease:
        """Lease a place in ``environment`` for ``run``. The same run asking again gets the same lease.

        Args:
            environment: as resolved or stored.
            run: for whom; a run without an id is an operator's test and never joined with another.
            terms: see `LeaseTerms`.

        Raises:
            EnvironmentRunError: ``invalid_config``, ``unsupported_environment``, ``driver_unavailable``, ``probe_failed``,
                ``capacity_exceeded`` or ``lease_acquire_failed``; nothing is left behind, or clean-up knows of it.
        """
        self._check()
        return (await self._acquire(environment, run, terms)).lease

    async def _acquire(
        self, environment: Environment, run: RunContext, terms: LeaseTerms, trace: tuple[LevelTrace, ...] = ()
    ) -> HeldLease:
        runtime = self._runtime
        if run.tenant != runtime.tenant or environment.tenant != runtime.tenant:
            raise resolution.foreign(environment, runtime.tenant)
        adapter = terms.get("adapter", COMMAND.type)
        policy = terms.get("policy") or environment.policy
        variables = terms.get("variables") or Variables()
        transfer = await acquiring.check(
            runtime, environment, transfer=terms.get("transfer"), policy=policy, variables=variables
        )
        actor = agent_or(run, terms.get("actor"))
        await probing.require(runtime, environment, actor)
        wanted = acquiring.Wanted(
            environment=environment,
            run=run,
            adapter=self._adapters.get(adapter, AdapterSpec(type=adapter)),
            actor=actor,
            policy=policy,
            transfer=transfer,
            variables=variables,
            lease_key=terms.get("lease_key", "default"),
            expires_at=terms.get("expires_at"),
            require_expiry=terms.get("require_expiry", False),
            metadata={"resolution": [attrs.asdict(level) for level in trace]} if trace else {},
        )
        return await acquiring.acquire(runtime, wanted)

    async def resolve_transport(self, lease: Lease, *, actor: Actor | None = None) -> SshTarget | None:
        """Return the ssh facts of a lease that is reached by ssh, else None.

        Raises:
            EnvironmentRunError: ``transport_resolution_failed``.
            LeaseLost: the lease is not held here.
        """
        held = self._held(lease)
        target = await resolve_target(self._runtime, held, held.cwd, agent_or(held.lease.context, actor))
        return target.target if isinstance(target.target, SshTarget) else None

    async def acquire_for_run(
        self, run: RunContext, selection: Selection | str | None = None, **terms: Unpack[LeaseTerms]
    ) -> Acquisition:
        """Resolve, acquire, resolve the transport; if the last fails the place is given back.

        Args:
            run: for whom.
            selection: as for `resolve_environment`.
            terms: see `LeaseTerms`.

        Raises:
            EnvironmentRunError: of any of the three steps.
        """
        found = await self.resolve_environment(
            selection,
            adapter=terms.get("adapter", COMMAND.type),
            execution_workspace_id=run.execution_workspace_id,
        )
        actor = terms.get("actor")
        held = await self._acquire(found.environment, await self._with_stored_mode(run), terms, found.trace)
        try:
            transport = await self.resolve_transport(held.lease, actor=actor)
        except BaseException as error:
            # Whatever it is, cancelled or not: nobody else would ever know of the lease.
            await self._give_back(held, error)
            raise
        return Acquisition(
            environment=found.environment,
            lease=held.lease,
            lease_context=LeaseContext(
                execution_workspace_id=held.lease.context.execution_workspace_id,
                execution_workspace_mode=held.lease.context.execution_workspace_mode,
            ),
            execution_transport=transport,
            resolution=found,
        )

    async def _with_stored_mode(self, run: RunContext) -> RunContext:
        """The mode of the persisted execution workspace stands above the call's."""
        if run.execution_workspace_id is None:
            return run
        stored = await self._runtime.store.read(workspaces.get, self._runtime.tenant, run.execution_workspace_id)
        return attrs.evolve(run, execution_workspace_mode=stored.mode) if stored and stored.mode else run

    async def _give_back(self, held: HeldLease, error: BaseException) -> None:
        """Release after a failure; what goes wrong with that is noted on the failure and never hides it."""
        # Of a foreign exception only the type: its text may hold anything, secrets too.
        ending = Ending(LeaseOutcome.FAILED, str(error) if isinstance(error, SojournError) else type(error).__name__)
        if not isinstance(error, Exception):
            ending = Ending(LeaseOutcome.EXPIRED, "cancelled while acquiring")
        try:
            done = await releasing.release_held(self._runtime, held, ending)
            if not done.status.terminal:
                error.add_note(str(releasing.release_error(done)))
        except SojournError as trouble:
            error.add_note(f"and lease {held.lease.id} could not be given back: {trouble}. `sojourn reap` will do it")

    # -- realize ------------------------------------------------------------------------------------------------------

    async def realize_for_run(
        self,
        acquisition: Acquisition,
        workspace: Workspace | str | os.PathLike[str] | None = None,
        *,
        overlay: Overlay | None = None,
        actor: Actor | None = None,
    ) -> Realization:
        """Bring the caller's workspace into the acquired place, provision it, and resolve the execution target.

        Args:
            acquisition: of `acquire_for_run`; its transfer was chosen there.
            workspace: the caller's tree; a path is that folder; None starts with an empty one.
            overlay: commands around the run.
            actor: who asks.

        Raises:
            EnvironmentRunError: ``workspace_realization_failed`` (``phase`` ``realize``, ``transfer``, ``provision``) or
                ``transport_resolution_failed``; the lease is still held.
            LeaseLost: the lease is not held here.
        """
        held = self._held(acquisition.lease)
        if not isinstance(workspace, Workspace):
            workspace = Workspace(local_path=None if workspace is None else os.fspath(workspace))
        done = await realize(self._runtime, held, workspace, overlay or Overlay(), agent_or(held.lease.context, actor))
        ssh = done.target.target
        return Realization(
            lease=done.lease,
            workspace_realization=done.record,
            target=done.target,
            remote_execution=ssh if isinstance(ssh, SshTarget) else None,
            execution_workspace=done.execution_workspace,
        )

    # -- release ------------------------------------------------------------------------------------------------------

    async def release_for_run(
        self,
        run: RunContext,
        *,
        status: LeaseOutcome | str = LeaseOutcome.RELEASED,
        failure_reason: str | None = None,
        disposition: Disposition | None = None,
        actor: Actor | None = None,
    ) -> ReleaseReport:
        """Give back every active lease of a run; running commands are ended first. A second call releases nothing.

        Args:
            run: whose leases.
            status: ``released``, ``expired`` (the run was cancelled) or ``failed`` (it failed or timed out).
            failure_reason: stored with the leases and their activity; stands above what the rows have.
            disposition: None is what the policy says.
            actor: who asks.

        Returns:
            What was released, and an error for each lease that waits for clean-up. Never raises but CancelledError.
        """
        self._check()
        ending = Ending(LeaseOutcome(status), failure_reason, disposition, actor)
        return await self.leases.release_run(run, ending)

    # -- all of it ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(
        self,
        *,
        environment: str | None = None,
        workspace: Workspace | str | os.PathLike[str] | None = None,
        run: RunContext | None = None,
        selection: Selection | None = None,
        overlay: Overlay | None = None,
        **terms: Unpack[LeaseTerms],
    ) -> AsyncIterator[Session]:
        """Acquire, realize, and give back when the block is left.

        Left by an exception the lease ends as ``failed``, by cancellation as ``expired``, after `Session.fail` as ``failed``,
        else as ``released``. What goes wrong with the release is in `Session.release_report` and noted on the exception.

        Args:
            environment: by id or name, above every level of ``selection``.
            workspace: the caller's tree.
            run: for whom; None is an operator's test.
            selection: what each level says.
            overlay: commands around the run.
            terms: see `LeaseTerms`.

        Raises:
            EnvironmentRunError: of any step.
        """
        run = run or RunContext(tenant=self._runtime.tenant, run_id=None, agent_id=None)
        selection = selection or Selection()
        if environment is not None:
            selection = attrs.evolve(selection, requested=environment)
        acquisition = await self.acquire_for_run(run, selection, **terms)
        actor = terms.get("actor")
        session = Session(self._runtime, self._held(acquisition.lease), acquisition)
        async with session._released_at_the_end(actor):
            session.realization = await self.realize_for_run(acquisition, workspace, overlay=overlay, actor=actor)
            yield session

    @asynccontextmanager
    async def attach(self, lease_id: str, *, actor: Actor | None = None) -> AsyncIterator[AttachedLease]:
        """Run commands by hand in an active lease, whoever holds it; leaving the block releases nothing.

        They get the stored environment's variables, not those that the run was given on top.

        Args:
            lease_id: which.
            actor: who asks; None is the operator.

        Raises:
            LeaseLost: there is no such lease, or it is not active.
            EnvironmentRunError: ``driver_unavailable`` or ``transport_resolution_failed``.
        """
        self._check()
        held = await self.leases.attached(lease_id)
        target = await resolve_target(self._runtime, held, held.cwd, actor or Actor(type="operator"))
        yield AttachedLease(self._runtime, held, target)

    # -- clean-up and record ------------------------------------------------------------------------------------------

    async def reap(
        self, *, dry_run: bool = False, force: bool = False, actor: Actor | None = None
    ) -> reaping.ReapReport:
        """Put right what crashed orchestrators left; see `sojourn.reaping.reap`."""
        self._check()
        return await reaping.reap(self._runtime, dry_run=dry_run, force=force, actor=actor or Actor(type="operator"))

    async def activity(
        self, *, after_id: int = 0, entity_id: str | None = None, limit: int | None = None, newest: bool = False
    ) -> list[ActivityEvent]:
        """Return what happened, oldest first; ``newest`` takes the last ``limit`` events instead of the first."""
        self._check()
        return await self._runtime.store.read(
            activity.list_all, self._runtime.tenant, after_id=after_id, entity_id=entity_id, limit=limit, newest=newest
        )

    async def doctor(self) -> Health:
        """Look at this installation and every stored environment; what is found says what to do next."""
        self._check()
        return await doctor.examine(self._runtime)

    # -- ourselves ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed:
            raise WrongContext("this orchestrator is closed; open a new one")
        if self._home[0] != os.getpid():
            raise WrongContext("this orchestrator belongs to another process (a fork?); open a new one here")
        if self._home[1:] != (threading.get_ident(), asyncio.get_running_loop()):
            raise WrongContext("this orchestrator belongs to another event loop or thread; open one there")

    def _held(self, lease: Lease) -> HeldLease:
        self._check()
        return self.leases.held(lease)

    async def _close(self) -> None:
        self._closed = True
        runtime = self._runtime
        try:
            # First the steps in progress: an acquire that ends now gives a lease that has to be released as well.
            await runtime.drain()
            if runtime.settings.release_on_close:
                await self._release_all()
            await runtime.drain()
            await runtime.drivers.close()
        finally:
            await self._sign_off()

    async def _release_all(self) -> None:
        ending = Ending(LeaseOutcome.EXPIRED, "its orchestrator was closed")
        work = [releasing.release_held(self._runtime, held, ending) for held in list(self._runtime.held.values())]
        for lease_end in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(lease_end, BaseException) and not isinstance(lease_end, SojournError):
                raise lease_end

    async def _sign_off(self) -> None:
        """Remove our holder row, or fence it where leases still name it: the next sweep then takes them over at once."""
        try:
            if not await self._runtime.store.run(holders.remove, self._runtime.holder_id):
                await self._runtime.store.run(holders.fence, self._runtime.holder_id)
        except StoreError:
            reaping.log.warning("holder %s could not be signed off", self._runtime.holder_id, exc_info=True)


def _workspace(given: Workspace | str | os.PathLike[str] | None) -> Workspace:
    if isinstance(given, Workspace):
        return given
    return Workspace(local_path=None if given is None else os.fspath(given))


def _register_holder(conn: Any) -> str:
    process = this_process()
    holder = Holder(
        id=new_id("holder"),
        host_id=process.host_id,
        boot_id=process.boot_id,
        pid_namespace=process.pid_namespace,
        pid=process.pid,
        process_started=process.process_started,
        beat_at=clock.now(conn),
        fenced_at=None,
    )
    return holders.register(conn, holder).id
