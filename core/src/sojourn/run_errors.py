"""Errors of a run, filled in from the lease or the environment that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sojourn.errors import DriverError, Effect, EnvironmentRunError, ErrorCode
from sojourn.records import Environment, Lease

__all__ = ["of_environment", "of_lease"]


def of_lease(
    code: ErrorCode,
    message: str,
    lease: Lease,
    *,
    phase: str,
    cause: BaseException | None = None,
    retryable: bool | None = None,
) -> EnvironmentRunError:
    """Return an error about a lease.

    Args:
        code: which promise was broken.
        message: what was tried, on what, and what to do next.
        lease: concerned.
        phase: the step.
        cause: a driver's error says by itself whether anything changed and whether trying again may help.
        retryable: instead of what the cause says.
    """
    effect, again = (cause.effect, cause.retryable) if isinstance(cause, DriverError) else (Effect.NONE, False)
    return EnvironmentRunError(
        code,
        message,
        environment_id=lease.environment_id,
        driver=lease.driver,
        provider=lease.provider,
        lease_id=lease.id,
        phase=phase,
        effect=effect,
        retryable=again if retryable is None else retryable,
    )


def of_environment(
    code: ErrorCode,
    message: str,
    environment: Environment,
    *,
    phase: str,
    retryable: bool = False,
    details: Mapping[str, Any] | None = None,
) -> EnvironmentRunError:
    """Return an error about an environment; arguments as for `EnvironmentRunError`."""
    return EnvironmentRunError(
        code,
        message,
        environment_id=environment.id,
        driver=environment.driver,
        phase=phase,
        retryable=retryable,
        details=details,
    )
