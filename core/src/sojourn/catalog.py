"""What is stored, for hosts and people: environments, execution workspaces, leases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from sojourn import releasing, removal
from sojourn.errors import (
    DriverError,
    EnvironmentRunError,
    ErrorCode,
    InvalidArgument,
    InvalidConfig,
    LeaseLost,
    SojournError,
    StoreError,
)
from sojourn.models import Actor, ConnectionInfo, ConnectionRequest, Disposition, RunContext
from sojourn.records import (
    AdapterSpec,
    Environment,
    EnvironmentStatus,
    ExecutionWorkspace,
    Lease,
    LeaseOutcome,
    LeasePolicy,
    LeaseStatus,
)
from sojourn.releasing import Ending, LeaseError, ReleaseReport
from sojourn.removal import BlastRadius
from sojourn.resolution import LOCAL
from sojourn.resolvers import secrets_in
from sojourn.runtime import HeldLease, Runtime, agent_or
from sojourn.secrets import Secret
from sojourn.store import environments, leases, workspaces
from sojourn.variables import refuse_reserved

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Environments", "ExecutionWorkspaces", "Leases"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TIMEOUTS = frozenset({"acquire", "realize", "release", "probe", "resume", "provision"})
PROMPT_SECONDS = 30.0
"""The deadline of a hook that a person waits for."""
Check = Callable[[], None]


class Environments:
    """The stored environments of a tenant."""

    def __init__(self, runtime: Runtime, check: Check) -> None:
        """Use `Orchestrator.environments`."""
        self._runtime = runtime
        self._check = check

    async def create(
        self,
        name: str,
        driver: str,
        config: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str | Secret] | None = None,
        policy: LeasePolicy = LeasePolicy.EPHEMERAL,
        max_leases: int | None = None,
        require_probe: bool = False,
        timeouts: Mapping[str, float] | None = None,
        description: str = "",
    ) -> Environment:
        """Store a new environment; its config is checked first.

        Args:
            name: letters, digits, ``.``, ``_``, ``-``; unique in the tenant.
            driver: an installed driver's name.
            config: plain JSON of the driver's config class; secrets as references.
            env: variables for every command.
            policy: what becomes of a place when its run is over.
            max_leases: how many places at once; None for no limit.
            require_probe: probe before every acquire.
            timeouts: seconds per hook, over the settings.
            description: for people.

        Raises:
            EnvironmentRunError: ``driver_unavailable`` or ``invalid_config``.
            StoreError: the name is taken (`sojourn.store.DuplicateName`).
        """
        self._check()
        values = self._checked(
            name, driver, dict(config or {}), env=dict(env or {}), max_leases=max_leases, timeouts=dict(timeouts or {})
        )
        return await self._runtime.store.run(
            environments.insert,
            tenant=self._runtime.tenant,
            name=name,
            driver=driver,
            policy=policy,
            require_probe=require_probe,
            description=description,
            **values,
        )

    async def get(self, id_or_name: str) -> Environment:
        """Return an environment of this tenant.

        Raises:
            EnvironmentRunError: ``environment_not_found``.
        """
        self._check()
        return await self._runtime.store.read(self._find, id_or_name)

    async def list(self, *, include_archived: bool = False) -> list[Environment]:
        """Return the tenant's environments."""
        self._check()
        return await self._runtime.store.read(
            environments.list_all, self._runtime.tenant, include_archived=include_archived
        )

    async def update(self, id_or_name: str, **changes: Any) -> Environment:
        """Change fields of an environment (those of `create`, and ``status``); its leases keep what they were acquired with.

        Raises:
            EnvironmentRunError: ``environment_not_found``, ``driver_unavailable`` or ``invalid_config``.
        """
        self._check()
        before = await self.get(id_or_name)
        driver = changes.get("driver", before.driver)
        values = self._checked(
            changes.get("name", before.name),
            driver,
            dict(changes.get("config", before.config)),
            env=dict(changes.get("env", before.env)),
            max_leases=changes.get("max_leases", before.max_leases),
            timeouts=dict(changes.get("timeouts", before.timeouts)),
        )
        return await self._runtime.store.run(environments.update, before.id, **{**changes, **values})

    async def archive(self, id_or_name: str) -> Environment:
        """Take an environment out of use; running leases go on, and its row stays."""
        self._check()
        found = await self.get(id_or_name)
        return await self._runtime.store.run(environments.update, found.id, status=EnvironmentStatus.ARCHIVED)

    async def set_default(self, id_or_name: str | None) -> None:
        """Make an environment the tenant's default; None goes back to the local one."""
        self._check()
        found = None if id_or_name is None else (await self.get(id_or_name)).id
        await self._runtime.store.run(environments.set_default, self._runtime.tenant, found)

    async def blast_radius(self, id_or_name: str) -> BlastRadius:
        """Say what removing an environment would hit; changes nothing.

        Raises:
            EnvironmentRunError: ``environment_not_found``.
        """
        found = await self.get(id_or_name)
        return await self._runtime.store.read(removal.blast_radius, found, self._references(found))

    async def remove(self, id_or_name: str, *, force: bool = False, actor: Actor | None = None) -> BlastRadius:
        """Remove an environment's row. Places that wait for clean-up, and retained ones, are not forgotten by that.

        Args:
            id_or_name: which.
            force: end the commands of active leases and release those first, instead of refusing.
            actor: who asks.

        Returns:
            What was hit.

        Raises:
            EnvironmentRunError: ``environment_not_found``; ``environment_in_use`` when leases are active, forced or not: a
                forced removal tries once to release them.
        """
        found = await self.get(id_or_name)
        references = self._references(found)
        radius = await self._runtime.store.read(removal.blast_radius, found, references)
        if force:
            ending = Ending(LeaseOutcome.EXPIRED, f"environment {found.name!r} was removed", actor=actor)
            active = [lease for lease in radius.active_leases if lease.status is LeaseStatus.ACTIVE]
            await Leases(self._runtime, self._check).end_all(active, ending)
        await self._runtime.store.run(removal.delete_unless_used, found, references)
        return radius

    def _references(self, environment: Environment) -> tuple[str, ...]:
        """Return the secret references of an environment; those of a config need its driver, to know which texts they are."""
        sources: list[Any] = [environment.env]
        try:
            driver = self._runtime.drivers.get(environment.driver)
            sources.append(driver.load_config(environment.config, "", version=environment.config_version, lenient=True))
        except (EnvironmentRunError, InvalidConfig):
            pass  # neither a missing driver nor a config of another version may keep an environment from being removed
        return tuple(sorted({secret.reference for source in sources for _, secret in secrets_in(source)}))

    def _find(self, conn: Connection, id_or_name: str) -> Environment:
        tenant = self._runtime.tenant
        found = environments.get(conn, id_or_name)
        if found is None or found.tenant != tenant:
            found = environments.find(conn, tenant, id_or_name)
        if found is None:
            known = ", ".join(e.name for e in environments.list_all(conn, tenant, include_archived=True)) or "none yet"
            raise EnvironmentRunError(
                ErrorCode.ENVIRONMENT_NOT_FOUND, f"no environment {id_or_name!r}. There are: {known}", phase="resolve"
            )
        return found

    def _checked(
        self,
        name: str,
        driver: str,
        config: dict[str, Any],
        *,
        env: dict[str, str | Secret],
        max_leases: int | None,
        timeouts: dict[str, float],
    ) -> dict[str, Any]:
        path = f"environments.{name}"
        loaded = self._runtime.drivers.get(driver)
        try:
            _check_name(name, driver)
            loaded.load_config(config, f"{path}.config")
            refuse_reserved(f"{path}.env", env)
            _check_numbers(path, max_leases, timeouts)
        except (InvalidConfig, InvalidArgument) as error:
            raise EnvironmentRunError(ErrorCode.INVALID_CONFIG, str(error), driver=driver, phase="config") from None
        version = loaded.info.config_version
        return {"config": config, "config_version": version, "env": env, "max_leases": max_leases, "timeouts": timeouts}


def _check_name(name: str, driver: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"environments.{name[:80]!r}", "a name is up to 63 letters, digits, '.', '_', '-'")
    if name == LOCAL and driver != LOCAL:
        # The name stands for this machine in every trace; it must not come to mean another place.
        raise InvalidConfig("environments.local.driver", "the environment called local runs on driver local")


def _check_numbers(path: str, max_leases: int | None, timeouts: Mapping[str, float]) -> None:
    if max_leases is not None and not max_leases >= 1:
        raise InvalidConfig(f"{path}.max_leases", "must be a whole number of at least 1, or nothing for no limit")
    for hook, seconds in timeouts.items():
        if hook not in TIMEOUTS:
            raise InvalidConfig(f"{path}.timeouts.{hook}", f"unknown; known are {', '.join(sorted(TIMEOUTS))}")
        if not 0 < seconds < float("inf"):
            raise InvalidConfig(f"{path}.timeouts.{hook}", "must be a number of seconds above 0")


class ExecutionWorkspaces:
    """The stored execution workspaces of a tenant."""

    def __init__(self, runtime: Runtime, check: Check) -> None:
        """Use `Orchestrator.workspaces`."""
        self._runtime = runtime
        self._check = check

    async def create(
        self,
        *,
        workspace_id: str | None = None,
        mode: str | None = None,
        environment_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ExecutionWorkspace:
        """Store an execution workspace.

        Args:
            workspace_id: the host application's id; None makes one.
            mode: the host application's word for how it is worked in.
            environment_id: which environment its runs use, above issue, project and agent.
            metadata: further facts.
        """
        self._check()
        return await self._runtime.store.run(
            workspaces.insert,
            tenant=self._runtime.tenant,
            workspace_id=workspace_id,
            mode=mode,
            environment_id=environment_id,
            metadata=dict(metadata or {}),
        )

    async def get(self, workspace_id: str) -> ExecutionWorkspace | None:
        """Return an execution workspace of this tenant, or None."""
        self._check()
        return await self._runtime.store.read(workspaces.get, self._runtime.tenant, workspace_id)

    async def list(self) -> list[ExecutionWorkspace]:
        """Return the tenant's execution workspaces."""
        self._check()
        return await self._runtime.store.read(workspaces.list_all, self._runtime.tenant)

    async def update(self, workspace_id: str, **changes: Any) -> ExecutionWorkspace:
        """Change ``mode``, ``environment_id``, ``status`` or ``metadata``."""
        self._check()
        return await self._runtime.store.run(workspaces.update, self._runtime.tenant, workspace_id, **changes)


class Leases:
    """The leases of a tenant."""

    def __init__(self, runtime: Runtime, check: Check) -> None:
        """Use `Orchestrator.leases`."""
        self._runtime = runtime
        self._check = check

    async def get(self, lease_id: str) -> Lease | None:
        """Return a lease of this tenant, or None."""
        self._check()
        found = await self._runtime.store.read(leases.get, lease_id)
        return found if found is not None and found.tenant == self._runtime.tenant else None

    async def list(
        self,
        *,
        status: LeaseStatus | None = None,
        run_id: str | None = None,
        environment_id: str | None = None,
        limit: int | None = None,
    ) -> list[Lease]:
        """Return leases, oldest first; ``limit`` keeps the newest."""
        self._check()
        return await self._runtime.store.read(
            leases.list_all,
            self._runtime.tenant,
            status=status,
            run_id=run_id,
            environment_id=environment_id,
            limit=limit,
        )

    async def extend(self, lease_id: str, expires_at: datetime) -> Lease:
        """Give an active lease another end of its lifetime.

        Raises:
            LeaseLost: it is not active.
        """
        lease = await self._existing(lease_id)
        extended = await self._runtime.store.run(leases.extend, lease, expires_at)
        if lease_id in self._runtime.held:
            self._runtime.held[lease_id].lease = extended
        return extended

    async def release(
        self,
        lease_id: str,
        *,
        status: LeaseOutcome | str = LeaseOutcome.RELEASED,
        failure_reason: str | None = None,
        disposition: Disposition | None = None,
        actor: Actor | None = None,
    ) -> ReleaseReport:
        """Give one lease back, also one that another orchestrator holds (it finds its lease lost), or try its clean-up now.

        Returns:
            A report; nothing released and no error when it was over already.

        Raises:
            LeaseLost: there is no such lease, or it is in the middle of its acquire.
        """
        lease = await self._existing(lease_id)
        ending = Ending(LeaseOutcome(status), failure_reason, disposition, actor)
        return await self.end_all([lease], ending)

    async def destroy(
        self, lease_id: str, *, failure_reason: str | None = None, actor: Actor | None = None
    ) -> ReleaseReport:
        """Destroy a lease's place whatever its policy says: active, kept for reuse or inspection, or waiting for clean-up.

        Returns:
            A report; nothing released and no error when it was gone already.

        Raises:
            LeaseLost: there is no such lease, or it is in the middle of its acquire or release.
        """
        lease = await self._existing(lease_id)
        if lease.status is LeaseStatus.RETAINED:
            lease = await self._runtime.store.run(leases.retire, lease, failure_reason)
        outcome = LeaseOutcome.FAILED if failure_reason else LeaseOutcome.EXPIRED
        return await self.end_all([lease], Ending(outcome, failure_reason, Disposition.DESTROY, actor))

    async def connection(self, lease_id: str, *, actor: Actor | None = None) -> ConnectionInfo:
        """Say how a person attaches to an active lease: a command to paste, ports.

        Raises:
            LeaseLost: there is no such lease, or it is not active.
            EnvironmentRunError: ``driver_unavailable``; ``unsupported_environment`` when the driver cannot say.
        """
        held = await self.attached(lease_id)
        lease, driver = held.lease, held.driver
        try:
            config, redactor = await self._runtime.config_of(lease, driver)
            fields = self._runtime.request_fields(lease, config, agent_or(lease.context, actor), PROMPT_SECONDS)
            request = ConnectionRequest(**fields, cwd=held.cwd)
            call = partial(driver.connection, request)
            return await self._runtime.call("connection", lease, request.actor, redactor, call)
        except DriverError as error:
            raise EnvironmentRunError(
                ErrorCode.UNSUPPORTED_ENVIRONMENT,
                f"lease {lease.id} in environment {lease.environment_name!r} cannot be attached to: {error}",
                environment_id=lease.environment_id,
                driver=lease.driver,
                lease_id=lease.id,
                phase="connection",
            ) from error

    async def attached(self, lease_id: str) -> HeldLease:
        """Return the live side of an active lease: ours, or one made from the row of somebody else's.

        Raises:
            LeaseLost: there is no such lease, or it is not active.
            EnvironmentRunError: ``driver_unavailable``.
        """
        lease = await self._existing(lease_id)
        if lease.id in self._runtime.held:
            return self._runtime.held[lease.id]
        if lease.status is not LeaseStatus.ACTIVE:
            raise LeaseLost(f"lease {lease.id} is {lease.status}; only an active one can be used", lease_id=lease.id)
        environment = await self._runtime.store.read(environments.get, lease.environment_id)
        return HeldLease(
            lease=lease,
            driver=self._runtime.drivers.get(lease.driver),
            env=environment.env if environment else {},
            adapter=AdapterSpec(type="command"),
            cwd=lease.remote_cwd,
        )

    async def release_run(self, run: RunContext, ending: Ending) -> ReleaseReport:
        """Give back every active lease of a run; see `Orchestrator.release_for_run`."""
        self._check()
        if run.run_id is None:
            error = InvalidArgument("a run without an id has no leases of its own; release its lease by id")
            return ReleaseReport(errors=(LeaseError(lease_id="*", error=error),))
        try:
            found = await self._runtime.store.read(leases.for_run, self._runtime.tenant, run.run_id)
        except StoreError as error:
            return ReleaseReport(errors=(LeaseError(lease_id="*", error=error),))
        live = (LeaseStatus.ACTIVE, LeaseStatus.RELEASING)
        return await self.end_all([lease for lease in found if lease.status in live], ending)

    def held(self, lease: Lease) -> HeldLease:
        """Return the live side of a lease that this orchestrator holds.

        Raises:
            LeaseLost: it does not.
        """
        held = self._runtime.held.get(lease.id)
        if held is None:
            raise LeaseLost(f"lease {lease.id} is not held by this orchestrator (any more)", lease_id=lease.id)
        return held

    async def _existing(self, lease_id: str) -> Lease:
        lease = await self.get(lease_id)
        if lease is None:
            raise LeaseLost(
                f"there is no lease {lease_id!r}; `sojourn lease list` shows what there is", lease_id=lease_id
            )
        return lease

    async def end_all(self, wanted: Sequence[Lease], ending: Ending) -> ReleaseReport:
        """Release each of ``wanted`` by itself: one failure never stops the others."""
        ends = await asyncio.gather(*(self._end(lease, ending) for lease in wanted))
        return ReleaseReport(
            released=tuple(end for end in ends if isinstance(end, Lease)),
            errors=tuple(end for end in ends if isinstance(end, LeaseError)),
        )

    async def _end(self, lease: Lease, ending: Ending) -> Lease | LeaseError | None:
        try:
            done = await self._end_by_state(lease, ending)
        except SojournError as error:
            return LeaseError(lease_id=lease.id, error=error)
        if done is None or done.status.terminal or done.status is LeaseStatus.RETAINED:
            return done
        return LeaseError(lease_id=lease.id, error=releasing.release_error(done))

    async def _end_by_state(self, lease: Lease, ending: Ending) -> Lease | None:
        held = self._runtime.held.get(lease.id)
        if held is not None:
            return await releasing.release_held(self._runtime, held, ending)
        actor = agent_or(lease.context, ending.actor)
        if lease.status is LeaseStatus.ACTIVE:
            claimed = await releasing.claim_row(self._runtime, lease, ending)
            work = releasing.release_row(self._runtime, claimed, actor)
        elif lease.status is LeaseStatus.PENDING_CLEANUP:
            work = releasing.clean_up(self._runtime, lease, actor, force=True)
        elif lease.status.terminal:
            return None
        else:
            raise LeaseLost(
                f"lease {lease.id} is {lease.status}; wait for that to end, or run `sojourn reap`", lease_id=lease.id
            )
        return await asyncio.shield(self._runtime.own(work, lease_id=lease.id))
