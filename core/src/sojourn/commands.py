"""Commands in a held lease: the environment they get, and the bookkeeping around their execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sojourn.errors import DriverError, EnvironmentRunError, ErrorCode, Gone, InvalidArgument, LeaseLost
from sojourn.execution import Execution, check_argv
from sojourn.ids import new_id
from sojourn.models import Actor, ExecuteRequest, ExecuteResult
from sojourn.records import LeaseStatus
from sojourn.resolvers import Redactor
from sojourn.run_errors import of_lease
from sojourn.runtime import HeldLease, Runtime, agent_or
from sojourn.secrets import Secret
from sojourn.store import leases
from sojourn.streams import LiveIO, Stdin, stdin_source
from sojourn.variables import refuse_reserved

__all__ = ["CommandSpec", "prepare", "run_command"]


@attrs.frozen(kw_only=True)
class CommandSpec:
    """What a caller asks to run.

    Args:
        argv: program and arguments.
        cwd: absolute, or relative to the realized root; None is the root.
        env: over the environment's own variables; values may be `Secret` references.
        stdin: bytes, text, a stream of bytes, or None for an empty stdin.
        timeout_seconds: None for no limit.
        grace_seconds: None for the setting.
        user: None for the driver's default.
        output_limit_bytes: how much of each stream the result keeps; None for the setting.
        streamed: whether somebody reads the output while the command runs.
        closing: it belongs to the release itself (a teardown command), so it may run while the lease is being given back.
    """

    argv: Sequence[str] = attrs.field(repr=False)
    cwd: str | None = None
    env: Mapping[str, str | Secret] = attrs.field(factory=dict, repr=False)
    stdin: Stdin = attrs.field(default=None, repr=False)
    timeout_seconds: float | None = None
    grace_seconds: float | None = None
    user: str | None = None
    output_limit_bytes: int | None = None
    streamed: bool = False
    closing: bool = False


async def prepare(runtime: Runtime, held: HeldLease, spec: CommandSpec, actor: Actor | None = None) -> Execution:
    """Check a command and make it ready to run in ``held``.

    Raises:
        LeaseLost: the lease is over.
        EnvironmentRunError: ``execution_failed``, because the command cannot be run as asked.
    """
    _check_usable(held, spec)
    try:
        request, redactor = await _request(runtime, held, spec, agent_or(held.lease.context, actor))
    except DriverError as error:
        raise _cannot(held, error) from error
    settings = runtime.settings
    limit = settings.output_limit_bytes if spec.output_limit_bytes is None else spec.output_limit_bytes
    io = LiveIO(stdin_source(spec.stdin), limit, streamed=spec.streamed)

    async def call(request: ExecuteRequest, io: LiveIO) -> Any:
        actor = request.actor
        return await runtime.call("execute", held.lease, actor, redactor, lambda: held.driver.execute(request, io))

    return Execution(request=request, io=io, call=call, redactor=redactor)


async def _request(
    runtime: Runtime, held: HeldLease, spec: CommandSpec, actor: Actor
) -> tuple[ExecuteRequest, Redactor]:
    argv = check_argv(spec.argv)
    refuse_reserved("env", spec.env)
    if spec.timeout_seconds is not None and not spec.timeout_seconds > 0:
        raise InvalidArgument(f"timeout_seconds is {spec.timeout_seconds:g}; it must be above 0, or None for no limit")
    config, _ = await runtime.config_of(held.lease, held.driver)
    env = await runtime.secrets.resolved({**held.env, **spec.env}, f"environments.{held.lease.environment_name}.env")
    redactor = Redactor.of(config, env)
    fields = runtime.request_fields(held.lease, config, actor, spec.timeout_seconds)
    settings = runtime.settings
    request = ExecuteRequest(
        **fields,
        exec_id=new_id("exec"),
        argv=argv,
        cwd=_absolute(held.cwd, spec.cwd),
        env={name: value.reveal() if isinstance(value, Secret) else value for name, value in env.items()},
        user=spec.user,
        grace_seconds=settings.grace_seconds if spec.grace_seconds is None else spec.grace_seconds,
        output_limit_bytes=settings.output_limit_bytes if spec.output_limit_bytes is None else spec.output_limit_bytes,
    )
    return request, redactor


def _absolute(root: str | None, cwd: str | None) -> str | None:
    if cwd is None or cwd.startswith("/") or root is None:
        return root if cwd is None else cwd
    return f"{root.rstrip('/')}/{cwd}"


async def run_command(runtime: Runtime, held: HeldLease, execution: Execution, spec: CommandSpec) -> ExecuteResult:
    """Run the prepared command of ``spec`` to its end; see `Execution.run`.

    Raises:
        LeaseLost: the lease is over.
        EnvironmentRunError: ``execution_failed``: it could not be run, or its place is gone.
    """
    _check_usable(held, spec)
    held.running.add(execution)
    try:
        return await execution.run()
    except Gone as error:
        await _check_row(runtime, held, error)
        held.unhealthy = str(error)
        raise _cannot(held, error) from error
    except DriverError as error:
        raise _cannot(held, error) from error
    finally:
        held.running.discard(execution)
        if execution.doubtful:
            held.unhealthy = f"command {execution.request.exec_id} was lost"


async def _check_row(runtime: Runtime, held: HeldLease, error: Gone) -> None:
    """The place is gone: perhaps because somebody else gave the lease back, and then that is what to say."""
    row = await runtime.store.read(leases.get, held.lease.id)
    if row is None or row.epoch != held.lease.epoch or row.status is not LeaseStatus.ACTIVE:
        held.lost.set()
        state = "its row is gone" if row is None else f"it is {row.status} at epoch {row.epoch}"
        message = f"lease {held.lease.id} is not ours any more: {state}. Somebody else gave it back"
        raise LeaseLost(message, lease_id=held.lease.id, phase="execute") from error


def _check_usable(held: HeldLease, spec: CommandSpec) -> None:
    if held.lost.is_set() or (held.closing and not spec.closing):
        state = "was given back, or belongs to another holder now" if held.lost.is_set() else "is being given back"
        raise LeaseLost(f"lease {held.lease.id} {state}", lease_id=held.lease.id, phase="execute")


def _cannot(held: HeldLease, error: DriverError) -> EnvironmentRunError:
    lease = held.lease
    message = f"cannot run the command in environment {lease.environment_name!r} (driver {lease.driver}): {error}"
    return of_lease(ErrorCode.EXECUTION_FAILED, message, lease, phase="execute", cause=error)
