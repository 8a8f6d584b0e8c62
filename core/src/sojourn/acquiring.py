"""Acquire a lease: intent first, then the driver, then the row; whatever fails in between is made good or left to clean-up."""

from __future__ import annotations

import asyncio
import hashlib
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from sojourn import releasing, wire
from sojourn.drivers import Driver
from sojourn.errors import (
    DriverBug,
    DriverError,
    Effect,
    EnvironmentRunError,
    ErrorCode,
    Gone,
    InvalidArgument,
    InvalidConfig,
    LeaseLost,
    OutcomeUnknown,
    StoreError,
)
from sojourn.guard import HookTimedOut
from sojourn.ids import new_id, new_resource_id
from sojourn.logs import logger
from sojourn.models import AcquireRequest, AcquireResult, Actor, RunContext, Transfer
from sojourn.records import AdapterSpec, Environment, Lease, LeaseOutcome, LeasePolicy, LeaseStatus, Operation
from sojourn.resolvers import MissingSecret, Redactor
from sojourn.run_errors import of_environment, of_lease
from sojourn.runtime import TIMEOUTS_KEY, HeldLease, Runtime
from sojourn.store import LeaseExists, clock, environments, leases
from sojourn.variables import Variables, refuse_reserved

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Wanted", "acquire", "check"]

log = logger("sojourn.leases")


@attrs.frozen(kw_only=True)
class Wanted:
    """What a caller asks of an acquire; see `Orchestrator.acquire_lease`."""

    environment: Environment
    run: RunContext
    adapter: AdapterSpec
    actor: Actor
    policy: LeasePolicy
    transfer: Transfer
    variables: Variables
    lease_key: str = "default"
    expires_at: datetime | None = None
    require_expiry: bool = False
    metadata: dict[str, object] = attrs.field(factory=dict)


async def check(
    runtime: Runtime,
    environment: Environment,
    *,
    transfer: Transfer | None,
    policy: LeasePolicy,
    variables: Variables,
) -> Transfer:
    """Check everything that can be known before anything is written; return the transfer that will be used.

    Raises:
        EnvironmentRunError: ``driver_unavailable``, ``invalid_config`` (config, variables, or secrets that have no value:
            all of them, each with its scope and name) or ``unsupported_environment``.
    """
    driver = runtime.drivers.get(environment.driver)
    path = f"environments.{environment.name}"
    try:
        config = driver.load_config(environment.config, f"{path}.config", version=environment.config_version)
        problems = await runtime.secrets.missing(config, f"{path}.config")
        for scope, env in variables.scopes(environment.name, environment.env).items():
            refuse_reserved(scope, env)
            problems += await runtime.secrets.missing(env, scope)
    except (InvalidConfig, InvalidArgument) as error:
        problems = [str(error)]
    if problems:
        raise _error(ErrorCode.INVALID_CONFIG, "; ".join(problems), environment, phase="resolve")
    return _supported(driver, environment, transfer, policy)


def _supported(driver: Driver, environment: Environment, transfer: Transfer | None, policy: LeasePolicy) -> Transfer:
    offered = driver.info.transfers
    if transfer is not None and transfer not in offered:
        message = f"driver {driver.name} does not offer transfer {transfer!r}; it offers {', '.join(offered)}"
        raise _error(ErrorCode.UNSUPPORTED_ENVIRONMENT, message, environment, phase="resolve")
    if policy is not LeasePolicy.EPHEMERAL:
        message = f"lease policy {policy} is not supported yet; use {LeasePolicy.EPHEMERAL}"
        raise _error(ErrorCode.UNSUPPORTED_ENVIRONMENT, message, environment, phase="resolve")
    return transfer or offered[0]


async def acquire(runtime: Runtime, wanted: Wanted) -> HeldLease:
    """Acquire a lease for a run, or join the one that the same run has or is getting.

    Cancelling the caller stops the waiting, not the step: the lease is acquired to its end and then given back.

    Raises:
        EnvironmentRunError: ``lease_acquire_failed``; its cause is the driver's error.
    """
    environment = wanted.environment
    driver = runtime.drivers.get(environment.driver)
    operation = Operation(
        name="acquire",
        tenant=runtime.tenant,
        environment_id=environment.id,
        driver=driver.name,
        lease_id=None,
        context=wanted.run,
        actor_type=wanted.actor.type,
    )
    await runtime.plugins.admit(operation)
    new = _intent(runtime, wanted, driver)
    # The insert is part of the step: a caller cancelled right after it must not leave a row that nobody works on.
    step = runtime.own(_acquire(runtime, new, wanted, driver), lease_id=new.id)
    try:
        return await _wait_for(runtime, step)
    except LeaseExists as error:
        return await _join(runtime, error.existing, environment)


def _insert(conn: Connection, new: leases.NewLease, lifetime: timedelta) -> Lease:
    # Locked, not read: two transactions must not count the same free slot.
    stored = environments.lock(conn, new.environment_id)
    if stored is None or stored.status != "active":
        state = "was deleted" if stored is None else f"became {stored.status}"
        raise EnvironmentRunError(
            ErrorCode.ENVIRONMENT_NOT_FOUND if stored is None else ErrorCode.ENVIRONMENT_INACTIVE,
            f"environment {new.environment_name!r} {state} meanwhile",
            environment_id=new.environment_id,
            driver=new.driver,
            phase="acquire",
        )
    if stored.max_leases is not None and leases.count_occupying(conn, stored.id) >= stored.max_leases:
        raise EnvironmentRunError(
            ErrorCode.CAPACITY_EXCEEDED,
            f"environment {new.environment_name!r} is full: all of its {stored.max_leases} leases are taken. Try again later",
            environment_id=new.environment_id,
            driver=new.driver,
            phase="acquire",
            retryable=True,
        )
    return leases.insert_intent(conn, attrs.evolve(new, expires_at=new.expires_at or clock.now(conn) + lifetime))


def _intent(runtime: Runtime, wanted: Wanted, driver: Driver) -> leases.NewLease:
    environment = wanted.environment
    return leases.NewLease(
        id=new_id("lease"),
        resource_id=new_resource_id(),
        context=wanted.run,
        environment_id=environment.id,
        environment_name=environment.name,
        driver=driver.name,
        provider=driver.info.provider,
        holder_id=runtime.holder_id,
        config=environment.config,
        config_version=environment.config_version,
        policy=wanted.policy,
        transfer=wanted.transfer,
        fingerprint=_fingerprint(wanted, driver),
        lease_key=wanted.lease_key,
        metadata={**wanted.metadata, **({TIMEOUTS_KEY: dict(environment.timeouts)} if environment.timeouts else {})},
        expires_at=wanted.expires_at,
    )


def _fingerprint(wanted: Wanted, driver: Driver) -> str:
    """Name the spec: what a kept place would have to agree in to be taken up again."""
    environment = wanted.environment
    facts = {
        "config": environment.config,
        "config_version": environment.config_version,
        "env": sorted(wanted.variables.over(environment.env)),
        "adapter": wanted.adapter.type,
        "driver": driver.name,
        "driver_version": driver.info.version,
        "transfer": wanted.transfer,
    }
    return hashlib.sha256(wire.plain_json_bytes(wire.checked_json(facts))).hexdigest()[:32]


async def _join(runtime: Runtime, existing: Lease, environment: Environment) -> HeldLease:
    """The same run asks twice: it gets the lease it has, if it is ours and of this environment."""
    if existing.holder_id == runtime.holder_id and existing.environment_id == environment.id:
        step = runtime.steps.get(existing.id)
        if existing.status is LeaseStatus.ACQUIRING and step is not None:
            return await _wait_for(runtime, step)
        if existing.id in runtime.held and existing.status is LeaseStatus.ACTIVE:
            return runtime.held[existing.id]
    raise of_lease(
        ErrorCode.LEASE_ACQUIRE_FAILED,
        f"run {existing.context.run_id!r} already has lease {existing.id} ({existing.status}) under key "
        f"{existing.lease_key!r} in environment {existing.environment_name!r}, held by {existing.holder_id}. "
        f"Release it first (`sojourn lease release {existing.id}`), or use another lease_key",
        existing,
        phase="acquire",
        retryable=True,
    )


async def _wait_for(runtime: Runtime, step: asyncio.Task[HeldLease]) -> HeldLease:
    """Wait for an acquire, maybe together with others; when the last of them is cancelled the lease is given back."""
    runtime.waiting[step] = runtime.waiting.get(step, 0) + 1
    try:
        # One who got the lease stays counted, so that nobody else gives it back.
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        runtime.waiting[step] -= 1
        if not runtime.waiting[step]:
            runtime.own(_give_back(runtime, step))
        raise


async def _give_back(runtime: Runtime, step: asyncio.Task[HeldLease]) -> None:
    """Nobody waits for the lease any more: release it as soon as it is there."""
    try:
        held = await step
    except (EnvironmentRunError, LeaseExists, StoreError):
        return  # the step has already put right what there was to put right
    await releasing.release_held(runtime, held, releasing.Ending(LeaseOutcome.EXPIRED, "cancelled while acquiring"))


# -- the step ---------------------------------------------------------------------------------------------------------


async def _acquire(runtime: Runtime, new: leases.NewLease, wanted: Wanted, driver: Driver) -> HeldLease:
    """From the intent to an active lease; every way out leaves the row telling the truth."""
    lease = await runtime.store.run(_insert, new, timedelta(seconds=runtime.settings.lease_lifetime_seconds))
    redactor = Redactor()
    try:
        config, _ = await runtime.config_of(lease, driver)
        variables = wanted.variables.over(wanted.environment.env)
        # Those of the variables as well: a provider may echo what it was told elsewhere.
        redactor = Redactor.of(config, await runtime.secrets.resolved(variables, "env"))
        result = await _call_driver(runtime, lease, wanted, driver, config, redactor)
    except (DriverError, asyncio.CancelledError) as error:
        await _failed(runtime, lease, driver, error, wanted.actor)
        raise _acquire_error(lease, error) from error
    held = await _activate(runtime, lease, wanted, driver, result, redactor)
    problem = _unbounded(wanted, result)
    if problem:
        await releasing.release_now(runtime, held, releasing.Ending(LeaseOutcome.FAILED, problem))
        raise _acquire_error(lease, Unbounded(problem))
    return held


class Unbounded(DriverError):
    """The resource's life could not be bounded as the caller requires."""


def _unbounded(wanted: Wanted, result: AcquireResult) -> str | None:
    if not wanted.require_expiry or wanted.expires_at is None:
        return None
    if result.expires_at is not None and result.expires_at <= wanted.expires_at:
        return None
    return f"the driver cannot end the place by itself at {wanted.expires_at.isoformat()}, and that was required"


async def _call_driver(
    runtime: Runtime, lease: Lease, wanted: Wanted, driver: Driver, config: object, redactor: Redactor
) -> AcquireResult:
    """Call acquire as often as its errors allow: a retryable one up to five times, an unknown outcome once more."""
    fields = runtime.request_fields(lease, config, wanted.actor, runtime.timeout_of(lease, "acquire"))
    request = AcquireRequest(
        **fields, spec=lease.fingerprint, transfer=wanted.transfer, requested_expires_at=wanted.expires_at
    )
    tries = 0
    while True:
        tries += 1
        try:
            result = await runtime.call("acquire", lease, wanted.actor, redactor, lambda: driver.acquire(request))
            _check_secrets(driver, result, redactor)
            return result
        except HookTimedOut:
            raise  # it may still be running: two at once is what a driver must never see
        except (OutcomeUnknown, DriverBug):
            if tries > 1:
                raise
        except DriverError as error:
            if isinstance(error, Gone):
                raise DriverBug(
                    f"driver {driver.name}: acquire said that what it was to make is gone: {error}"
                ) from error
            if not error.retryable or tries >= runtime.settings.acquire_tries:
                raise
        await asyncio.sleep(_pause(tries, runtime.settings.retry_seconds))


def _pause(tries: int, longest_seconds: float) -> float:
    longest: float = min(longest_seconds, 0.25 * 2 ** (tries - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _check_secrets(driver: Driver, result: AcquireResult, redactor: Redactor) -> None:
    if redactor.stripped(result.handle) != result.handle:
        raise DriverBug(f"driver {driver.name}: acquire put a secret into its handle")


async def _activate(
    runtime: Runtime, lease: Lease, wanted: Wanted, driver: Driver, result: AcquireResult, redactor: Redactor
) -> HeldLease:
    metadata = dict(redactor.stripped(result.metadata))
    if result.remote_cwd and result.remote_cwd.strip():
        metadata["remote_cwd"] = result.remote_cwd.strip()
    provider_lease_id = redactor.stripped(result.provider_lease_id)

    def activate(conn: Connection) -> tuple[Lease, object]:
        active = leases.activate(
            conn,
            lease,
            handle=result.handle,
            provider_lease_id=provider_lease_id,
            metadata=metadata,
            expires_at=result.expires_at,
        )
        return active, releasing.record(
            conn,
            active,
            wanted.actor,
            "environment.lease_acquired",
            {
                "environment_id": active.environment_id,
                "driver": active.driver,
                "policy": active.policy,
                "provider": active.provider,
                "execution_workspace_id": active.context.execution_workspace_id,
                "issue_id": active.context.issue_id,
            },
        )

    try:
        active, event = await runtime.store.run(activate)
    except LeaseLost:
        raise  # another holder has the row now, and with it the duty to clean up
    except StoreError as error:
        runtime.own(_record_unknown(runtime, lease, driver, f"the row could not be written: {error}", wanted.actor))
        raise _acquire_error(lease, error) from error
    runtime.publish([event])  # type: ignore[list-item]
    held = HeldLease(
        lease=active, driver=driver, env=wanted.variables.over(wanted.environment.env), adapter=wanted.adapter
    )
    runtime.held[active.id] = held
    return held


# -- the ways out -----------------------------------------------------------------------------------------------------


async def _failed(runtime: Runtime, lease: Lease, driver: Driver, error: BaseException, actor: Actor) -> None:
    """Write what the failure means. The driver's error stays the one that is raised, whatever happens here."""
    reason = str(error) or type(error).__name__
    try:
        if isinstance(error, DriverError) and error.effect is Effect.NONE:
            await runtime.store.run(leases.fail_acquire, lease, reason=reason)
        else:
            late = isinstance(error, OutcomeUnknown)
            await _record_unknown(runtime, lease, driver, reason, actor, late=late)
    except (LeaseLost, StoreError) as trouble:
        error.add_note(f"and the lease row could not be brought up to date: {trouble}. `sojourn reap` will do it")


async def _record_unknown(
    runtime: Runtime, lease: Lease, driver: Driver, reason: str, actor: Actor, *, late: bool = False
) -> None:
    """Something may have been made: hand the row to clean-up and try it at once.

    Args:
        late: the driver's call may still take effect, so that absence proves nothing before ``late_effect_seconds``.
    """
    settle = timedelta(seconds=runtime.settings.late_effect_seconds if late else 0.0)

    def unknown(conn: Connection) -> Lease:
        not_before = clock.now(conn) + settle if settle else None
        return leases.acquire_unknown(conn, lease, reason=reason, outcome=LeaseOutcome.FAILED, not_before=not_before)

    pending = await _with_patience(runtime, unknown)
    # At once, though it may be too early to be final: what is there already should not stay longer than it must.
    await releasing.clean_up(runtime, pending, actor, force=True)


async def _with_patience(runtime: Runtime, unknown: object) -> Lease:
    """Write a row that must not be lost while the store is away for a moment."""
    for wait_seconds in (0.1, 0.5, 2.0, 5.0):
        try:
            return await runtime.store.run(unknown)  # type: ignore[arg-type]
        except LeaseLost:
            raise
        except StoreError as error:
            log.warning("lease row not written, trying again in %s s: %s", wait_seconds, error)
            await asyncio.sleep(wait_seconds)
    return await runtime.store.run(unknown)  # type: ignore[arg-type]


def _acquire_error(lease: Lease, error: BaseException) -> EnvironmentRunError:
    effect = error.effect if isinstance(error, DriverError) else Effect.MAYBE
    code = ErrorCode.INVALID_CONFIG if isinstance(error, MissingSecret) else ErrorCode.LEASE_ACQUIRE_FAILED
    return EnvironmentRunError(
        code,
        f"Failed to acquire a lease in environment {lease.environment_name!r} (driver {lease.driver}): {error}",
        environment_id=lease.environment_id,
        driver=lease.driver,
        provider=lease.provider,
        lease_id=lease.id,
        phase="acquire",
        effect=effect,
        retryable=isinstance(error, DriverError) and error.retryable,
    )


def _error(code: ErrorCode, message: str, environment: Environment, *, phase: str) -> EnvironmentRunError:
    message = f"environment {environment.name!r} (driver {environment.driver}): {message}"
    return of_environment(code, message, environment, phase=phase)
