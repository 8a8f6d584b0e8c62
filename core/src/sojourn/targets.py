"""Execution targets: what a driver says of its transport, with the ids that let a later run know the place again."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sojourn.errors import DriverBug, DriverError, EnvironmentRunError, ErrorCode
from sojourn.models import Actor, LocalTarget, SshTarget, Target, TargetRequest
from sojourn.records import Lease
from sojourn.run_errors import of_lease
from sojourn.runtime import HeldLease, Runtime

__all__ = ["ExecutionTarget", "resolve_target"]


@attrs.frozen(kw_only=True)
class ExecutionTarget:
    """Where an adapter executes: the transport's facts and the ids around them.

    Args:
        target: the driver's answer.
        environment_id: of the environment.
        lease_id: of the lease.
        driver: the driver's name.
        provider: what stands behind it.
    """

    target: Target
    environment_id: str
    lease_id: str
    driver: str
    provider: str

    @property
    def transport(self) -> str:
        """The transport's name."""
        return self.target.transport

    @property
    def cwd(self) -> str | None:
        """The realized root; None before realize."""
        return self.target.cwd

    @property
    def identity(self) -> Mapping[str, str | int | None]:
        """What has to be unchanged for a stored agent session to be resumed here."""
        if isinstance(self.target, SshTarget):
            facts: dict[str, str | int | None] = {
                "host": self.target.host,
                "port": self.target.port,
                "username": self.target.username,
            }
        elif isinstance(self.target, LocalTarget):
            facts = {}
        else:
            facts = {"provider": self.provider, "environment_id": self.environment_id, "lease_id": self.lease_id}
        return {"transport": self.transport, **facts, "cwd": self.cwd}


async def resolve_target(runtime: Runtime, held: HeldLease, cwd: str | None, actor: Actor) -> ExecutionTarget:
    """Ask the driver for the transport facts.

    Raises:
        EnvironmentRunError: ``transport_resolution_failed``.
    """
    lease = held.lease
    try:
        config, redactor = await runtime.config_of(lease, held.driver)
        request = TargetRequest(**runtime.request_fields(lease, config, actor, None), cwd=cwd)

        async def call() -> Target:
            return held.driver.target(request)

        target = await runtime.call("target", lease, actor, redactor, call)
        if target.transport != held.driver.info.transport:
            said = held.driver.info.transport
            raise DriverBug(
                f"driver {lease.driver}: target has transport {target.transport!r}, driver_info says {said!r}"
            )
    except DriverError as error:
        raise _unresolved(lease, error) from error
    return ExecutionTarget(
        target=target,
        environment_id=lease.environment_id,
        lease_id=lease.id,
        driver=lease.driver,
        provider=lease.provider,
    )


def _unresolved(lease: Lease, error: DriverError) -> EnvironmentRunError:
    where = f"environment {lease.environment_name!r} (driver {lease.driver})"
    message = f"cannot resolve the execution target of {where}: {error}"
    return of_lease(ErrorCode.TRANSPORT_RESOLUTION_FAILED, message, lease, phase="target", cause=error)
