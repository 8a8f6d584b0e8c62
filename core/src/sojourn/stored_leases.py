"""The leases of a tenant: looked at, extended, released, destroyed, attached to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from sojourn import releasing
from sojourn.errors import (
    DriverError,
    ErrorCode,
    InvalidArgument,
    LeaseLost,
    SojournError,
    StoreError,
)
from sojourn.models import Actor, ConnectionInfo, ConnectionRequest, Disposition, RunContext
from sojourn.records import (
    AdapterSpec,
    Lease,
    LeaseOutcome,
    LeaseStatus,
)
from sojourn.releasing import Ending, LeaseError, ReleaseReport
from sojourn.run_errors import of_lease
from sojourn.runtime import HeldLease, Runtime, agent_or
from sojourn.store import environments, leases

__all__ = ["Leases"]

PROMPT_SECONDS = 30.0
"""The deadline of a hook that a person waits for."""
Check = Callable[[], None]


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
        reason = failure_reason or "destroyed by hand"
        return await self.end_all([lease], Ending(outcome, reason, Disposition.DESTROY, actor))

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
            message = f"lease {lease.id} in environment {lease.environment_name!r} cannot be attached to: {error}"
            code = ErrorCode.UNSUPPORTED_ENVIRONMENT
            raise of_lease(code, message, lease, phase="connection", cause=error) from error

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
