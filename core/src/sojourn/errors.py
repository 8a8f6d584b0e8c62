"""Every error that sojourn raises.

::

    SojournError
    ├── EnvironmentRunError          a step of a run failed; ``code`` says which promise was broken
    │   └── LeaseLost                the lease is no longer ours: stop, write nothing
    ├── DriverError                  what drivers raise; the class says what the caller may do next
    │   ├── InvalidConfig            the stored or resolved config is wrong (names path and reason)
    │   ├── InvalidArgument          this request cannot be done as asked (cwd missing, unknown user, NUL)
    │   ├── Unsupported              the driver does not offer this
    │   ├── PermissionDenied         the provider refused our credentials
    │   ├── HostKeyMismatch          the host is not the one that was pinned
    │   ├── Conflict                 the resource id exists with another spec
    │   ├── Busy                     taken now; asking again later may succeed
    │   ├── Unavailable              not reachable now; asking again later may succeed
    │   ├── ResourceExhausted        no room (disk, memory, quota); asking again later may succeed
    │   ├── Refused                  the provider declined this resource for good
    │   ├── Gone                     the resource is proven not to exist any more
    │   ├── OutcomeUnknown           the call may or may not have taken effect
    │   └── DriverBug                the driver broke the contract; treated like OutcomeUnknown
    ├── CommandFailed                ``ExecuteResult.check()`` on a command that did not exit with 0
    ├── WorkspaceError               the caller's tree cannot be used as asked
    ├── StoreError                   the store cannot answer
    │   ├── StoreUnavailable         locked or not reachable now
    │   ├── StoreUnwritable          read-only, no permission, no space
    │   ├── StoreCorrupt             not a database, or damaged
    │   └── SchemaMismatch           written by a newer sojourn, or not upgraded yet
    └── WrongContext                 an orchestrator used outside its loop, thread or process, or after close

``DriverError.effect`` says whether the failed call changed anything at the provider. It decides what happens to the
lease: ``none`` ends it, ``maybe`` and ``done`` leave it to clean-up until the resource is proven gone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.models import ExecuteResult

__all__ = [
    "Busy",
    "CommandFailed",
    "Conflict",
    "DriverBug",
    "DriverError",
    "Effect",
    "EnvironmentRunError",
    "ErrorCode",
    "Gone",
    "HostKeyMismatch",
    "InvalidArgument",
    "InvalidConfig",
    "LeaseLost",
    "OutcomeUnknown",
    "PermissionDenied",
    "Refused",
    "ResourceExhausted",
    "SchemaMismatch",
    "SojournError",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "StoreUnwritable",
    "Unavailable",
    "Unsupported",
    "WorkspaceError",
    "WrongContext",
]


class ErrorCode(StrEnum):
    """What kind of promise was broken; stable, for programs to branch on."""

    ENVIRONMENT_NOT_FOUND = "environment_not_found"
    ENVIRONMENT_INACTIVE = "environment_inactive"
    ENVIRONMENT_IN_USE = "environment_in_use"
    UNSUPPORTED_ENVIRONMENT = "unsupported_environment"
    UNSUPPORTED_ADAPTER_ENVIRONMENT = "unsupported_adapter_environment"
    DRIVER_UNAVAILABLE = "driver_unavailable"
    INVALID_CONFIG = "invalid_config"
    PROBE_FAILED = "probe_failed"
    LEASE_ACQUIRE_FAILED = "lease_acquire_failed"
    WORKSPACE_REALIZATION_FAILED = "workspace_realization_failed"
    TRANSPORT_RESOLUTION_FAILED = "transport_resolution_failed"
    CAPACITY_EXCEEDED = "capacity_exceeded"
    EXECUTION_FAILED = "execution_failed"
    LEASE_LOST = "lease_lost"
    LEASE_RELEASE_FAILED = "lease_release_failed"
    LEASE_CLEANUP_FAILED = "lease_cleanup_failed"


class Effect(StrEnum):
    """Whether a failed driver call changed anything at the provider."""

    NONE = "none"
    MAYBE = "maybe"
    DONE = "done"


class SojournError(Exception):
    """The root of every error that sojourn raises on purpose."""


class EnvironmentRunError(SojournError):
    """A step of a run failed.

    Args:
        code: which promise was broken; stable.
        message: what was tried, on what, and what to do next; never holds a secret.
        environment_id: the environment concerned, where one was chosen.
        driver: its driver's name.
        provider: what stands behind the driver.
        lease_id: the lease concerned, where there is one.
        phase: the step, e.g. ``acquire``, ``realize``, ``provision``.
        effect: whether anything was changed at the provider.
        retryable: whether the same call may succeed later without a change.
        details: further facts for programs; JSON-able, no secrets.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        environment_id: str | None = None,
        driver: str | None = None,
        provider: str | None = None,
        lease_id: str | None = None,
        phase: str | None = None,
        effect: Effect = Effect.NONE,
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.environment_id = environment_id
        self.driver = driver
        self.provider = provider
        self.lease_id = lease_id
        self.phase = phase
        self.effect = effect
        self.retryable = retryable
        self.details: dict[str, Any] = dict(details or {})


class LeaseLost(EnvironmentRunError):
    """The lease is no longer ours: its row moved on under another holder, or was never active. Stop; write nothing."""

    def __init__(self, message: str, *, lease_id: str | None = None, phase: str | None = None) -> None:
        super().__init__(ErrorCode.LEASE_LOST, message, lease_id=lease_id, phase=phase)


class DriverError(SojournError):
    """The root of what drivers raise. Raise a subclass; anything else counts as a bug of the driver.

    Args:
        message: what was tried, on what, and what to do next; never a secret.
    """

    effect: ClassVar[Effect] = Effect.NONE
    retryable: ClassVar[bool] = False


class InvalidConfig(DriverError):
    """A config value is wrong. ``path`` is where, e.g. ``environments.build.config.port``; never holds the value of a secret."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class InvalidArgument(DriverError):
    """The request cannot be done as asked: its working directory is missing, its user unknown, its argv empty."""


class Unsupported(DriverError):
    """The driver does not offer what was asked."""


class PermissionDenied(DriverError):
    """The provider refused the credentials it was given."""


class HostKeyMismatch(DriverError):
    """The host showed another key than the one that was pinned. Never retried."""


class Conflict(DriverError):
    """The resource id exists with another spec."""


class Busy(DriverError):
    """Taken now; asking again later may succeed."""

    retryable = True


class Unavailable(DriverError):
    """Not reachable now; asking again later may succeed."""

    retryable = True


class ResourceExhausted(DriverError):
    """No room (disk, memory, quota, slots); asking again later may succeed."""

    retryable = True


class Refused(DriverError):
    """The provider declined this resource for good."""


class Gone(DriverError):
    """The resource is proven not to exist any more. Not being sure is ``Unavailable`` or ``OutcomeUnknown``, never this."""

    effect = Effect.DONE


class OutcomeUnknown(DriverError):
    """The call may or may not have taken effect, and may still do so."""

    effect = Effect.MAYBE


class DriverBug(DriverError):
    """The driver broke the contract: wrong type, foreign exception, missed deadline. Its effect is unknown."""

    effect = Effect.MAYBE


class CommandFailed(SojournError):
    """A command did not exit with status 0. ``result`` is its `ExecuteResult`; the message names no argument of it."""

    def __init__(self, message: str, result: ExecuteResult) -> None:
        super().__init__(message)
        self.result = result


class WorkspaceError(SojournError):
    """The caller's tree cannot be used as asked; nothing was touched. ``path`` names the culprit."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StoreError(SojournError):
    """The store cannot answer."""


class StoreUnavailable(StoreError):
    """Locked by another writer for longer than we wait, or not reachable now."""


class StoreUnwritable(StoreError):
    """Read-only, no permission, or no space left."""


class StoreCorrupt(StoreError):
    """Not a database, or a damaged one. sojourn never repairs or replaces it by itself."""


class SchemaMismatch(StoreError):
    """Written by a newer sojourn than this one, or by an older one and not upgraded yet."""


class WrongContext(SojournError):
    """An orchestrator was used outside the loop, thread or process that opened it, or after it was closed."""
