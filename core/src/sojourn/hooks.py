"""The driver contract, in text: every hook, who calls it, what it may assume, what it returns and raises.

A driver is a class named by an entry point of group ``sojourn.drivers``; its methods carry `hookimpl`. Hooks marked
*required* must be there. A missing *optional* hook is `Unsupported`, never a silent no-op; a missing *defaulted* hook is done
by the core. Implementations may be ``async def`` (and must not block the event loop) or plain ``def`` (they run in a daemon
thread of the driver's own pool).

Rules for every hook:

- Raise from the `sojourn.errors.DriverError` tree; translate foreign errors once, with ``raise … from``. Anything else,
  ``SystemExit`` included, becomes `DriverBug` with effect ``maybe``.
- Do not return, raise or let yourself be cancelled while a provider call that you started may still take effect: shield and
  await it, or raise `OutcomeUnknown`. At its deadline a hook is cancelled, and abandoned ten seconds later.
- On one resource ``execute``, ``upload`` and ``download`` may overlap; ``acquire``, ``resume``, ``realize`` and ``release``
  are exclusive, the core sees to it, and before a release it ends all running commands.
- Secrets (`Secret.reveal`) go into no argv, log, label, error text, handle or metadata.
- Deadlines come with the request (``timeout_seconds``). Retrying is the core's business.

Plugins (group ``sojourn.plugins``) implement the second set of hooks; drivers cannot, and the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from sojourn.models import (
        AcquireRequest,
        AcquireResult,
        CommandIO,
        CommandOutcome,
        ConnectionInfo,
        ConnectionRequest,
        DownloadRequest,
        DriverInfo,
        ExecuteRequest,
        InventoryItem,
        InventoryRequest,
        JsonObject,
        ProbeReport,
        ProbeRequest,
        RealizeRequest,
        RealizeResult,
        ReleaseReceipt,
        ReleaseRequest,
        ResumeRequest,
        Target,
        TargetRequest,
        UploadRequest,
    )
    from sojourn.records import ActivityEvent, AdapterSpec, Operation

__all__ = ["DriverSpec", "PluginSpec", "hookimpl"]

PROJECT = "sojourn"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class DriverSpec:
    """The hooks of a driver."""

    @hookspec(firstresult=True)
    def driver_info(self) -> DriverInfo:
        """Say what this driver is. **Required.**

        Called once per load, before anything else. A plain ``def``, pure: no I/O, no import of the provider's library, the
        same answer every time. ``name`` must equal the entry point's.
        """

    @hookspec(firstresult=True)
    def acquire(self, request: AcquireRequest) -> AcquireResult:
        """Get or create the resource named ``request.resource_id``. **Required.**

        Called on a committed row in state ``acquiring``; may be repeated, also eight times at once, and after a crash:
        the same ``resource_id`` with the same ``spec`` gives the same resource, with another ``spec`` raise `Conflict`. Set
        ``request.labels`` **in** the create call, so that ``inventory`` finds the resource from its first moment. When
        unsure whether something was made raise `OutcomeUnknown`; on a clean failure leave nothing behind.
        """

    @hookspec(firstresult=True)
    def execute(self, request: ExecuteRequest, io: CommandIO) -> CommandOutcome:
        """Run one command and tell how it ended. **Required.**

        Called on active leases, many at once. Never raises for what the command did: exit status, signal, time-out are in
        the `CommandOutcome`; 127 is not found, 126 not executable. Raise `InvalidArgument` for a missing ``cwd`` or an unknown
        user, before anything runs. ``request.exec_id`` twice is one run. Pass output on through ``await io.write(...)``,
        apart and byte-exact. "The stream ended" is not "the command finished": without an exit status the outcome is
        ``lost``. A background child does not hold the call.

        The time limit is enforced inside the environment. When it is over, or ``io.stop`` is set, end the **whole process
        tree** (TERM, ``grace_seconds``, KILL; setsid'd and double-forked descendants too) and return within
        ``grace_seconds`` + 2 s with ``timed_out`` or ``cancelled`` and ``kill_confirmed``. ``SOJOURN_RESOURCE_ID`` is set in the
        command's environment. Neither env values nor stdin show up in any argv.
        """

    @hookspec(firstresult=True)
    def release(self, request: ReleaseRequest) -> ReleaseReceipt:
        """Keep, stop or destroy the resource and tell what is true of it now. **Required.**

        Called on a row in state ``releasing`` or ``pending_cleanup``, as often as it takes, also by another process than the
        one that acquired, with the handle or with ``resource_id`` alone. Absence is success (``gone``). Say ``gone`` only when it
        is proven, every process of the lease included; when unsure raise.
        """

    @hookspec(firstresult=True)
    def target(self, request: TargetRequest) -> Target:
        """Give the transport facts that an adapter needs. **Required.**

        Called after acquire (``cwd`` may be None) and after realize. A plain ``def``, pure, no I/O. The core binds ``execute`` and adds
        the ids.
        """

    @hookspec(firstresult=True)
    def probe(self, request: ProbeRequest) -> ProbeReport:
        """Say whether this config is usable now. *Defaulted*: the config parses, nothing else was checked.

        Creates nothing. Does not raise for an unusable environment: that is ``ok=False`` with diagnostics that say what to do next.
        """

    @hookspec(firstresult=True)
    def realize(self, request: RealizeRequest) -> RealizeResult:
        """Say where the workspace's root is and make it exist; move no bytes. *Defaulted*: ``mkdir -p`` under ``remote_path``.

        May be called again on an active lease and gives the same root. With ``request.clean`` the root is empty afterwards.
        """

    @hookspec(firstresult=True)
    def upload(self, request: UploadRequest, stream: AsyncIterator[bytes]) -> None:
        """Unpack an archive stream under ``request.path``. *Defaulted*: ``tar`` over ``execute``.

        ``stream`` yields POSIX tar bytes made by the core from a checked selection.
        """

    @hookspec(firstresult=True)
    def download(self, request: DownloadRequest) -> AsyncIterator[bytes]:
        """Pack ``request.path`` into an archive stream. *Defaulted*: ``tar`` over ``execute``.

        What comes back is hostile input to the core, which extracts it safely.
        """

    @hookspec(firstresult=True)
    def resume(self, request: ResumeRequest) -> AcquireResult:
        """Take a kept or stopped resource up again. *Optional.*

        Raise `Unavailable` (cannot be reached now), `Refused` (will not be given to us) or `Gone` (proven not to exist):
        the core does three different things.
        """

    @hookspec(firstresult=True)
    def inventory(self, request: InventoryRequest) -> list[InventoryItem]:
        """List every resource that carries ``request.installation_id``'s label, and no other. *Optional.*

        A listing that may be incomplete raises instead: sweeps act on it.
        """

    @hookspec(firstresult=True)
    def connection(self, request: ConnectionRequest) -> ConnectionInfo:
        """Say how a person attaches: a command to paste, ports. *Optional.* No secrets in it."""

    @hookspec(firstresult=True)
    def upgrade_config(self, from_version: int, data: JsonObject) -> JsonObject:
        """Bring a stored config of an older ``config_version`` up to the current one. *Optional*, a plain ``def``, pure."""

    @hookspec(firstresult=True)
    def close(self) -> None:
        """Drop pooled connections. *Optional*; may never be called. The driver may be used again afterwards."""


class PluginSpec:
    """The hooks of a plugin that is not a driver."""

    @hookspec
    def admit(self, operation: Operation) -> Awaitable[None]:
        """Allow an operation by returning, deny it by raising. ``async def``. Called before anything is written or leased."""

    @hookspec
    def around(self, operation: Operation, call_next: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Wrap a hook call of a driver: tracing, policy, fault injection. ``async def``; awaits ``call_next()`` once and returns its answer.

        What it raises counts as the driver's answer.
        """

    @hookspec
    def on_activity(self, event: ActivityEvent) -> None:
        """See an activity after its commit. A plain ``def`` that must not block; a failure is logged and changes nothing."""

    @hookspec
    def resolve_secret(self, reference: str) -> Any:
        """Give the value of a secret reference, or None when the scheme is not yours. A ``str``, or an awaitable of one."""

    @hookspec
    def adapters(self) -> Iterable[AdapterSpec]:
        """Name adapters and the transports they can run over. A plain ``def``, pure."""


DRIVER_HOOKS: tuple[str, ...] = tuple(name for name in vars(DriverSpec) if not name.startswith("_"))
REQUIRED_HOOKS: tuple[str, ...] = ("driver_info", "acquire", "execute", "release", "target")
PURE_HOOKS: tuple[str, ...] = ("driver_info", "target", "upgrade_config")
PLUGIN_HOOKS: tuple[str, ...] = tuple(name for name in vars(PluginSpec) if not name.startswith("_"))
