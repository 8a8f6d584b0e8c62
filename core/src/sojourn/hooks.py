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
- A resource that knows a newer ``epoch`` than the request's refuses it: raise `Refused`. A driver that can keep the epoch inside
  the resource says ``fencing``.
- Secrets (`Secret.reveal`) go into no argv, log, label, error text, handle or metadata.
- Deadlines come with the request (``timeout_seconds``). Retrying is the core's business.

``upload`` and ``download`` are part of the contract so that drivers can be written for it; this version of the core does not
call them yet.

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
        same answer every time. Returns a `DriverInfo` whose ``name`` equals the entry point's. Nothing to raise: a driver that
        raises here is listed as broken, and the others work.
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
        user, before anything runs. ``request.exec_id`` twice is one run: the second caller gets the same outcome, the output
        went to the first. Pass output on through ``await io.write(...)``,
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
        is proven, every process of the lease included. A resource that carries another installation's label is left alone: raise
        `Conflict`. Two calls at once may happen (an operator and a sweep); each gives ``gone`` or raises something retryable.
        Returns a `ReleaseReceipt`; when unsure raise, and you are called again.
        """

    @hookspec(firstresult=True)
    def target(self, request: TargetRequest) -> Target:
        """Give the transport facts that an adapter needs. **Required.**

        Called after acquire (``cwd`` may be None) and after realize. A plain ``def``, pure, no I/O. Returns one of the four
        targets; the core binds ``execute`` and adds the ids. Nothing to raise: what is wrong with the config was said before.
        """

    @hookspec(firstresult=True)
    def probe(self, request: ProbeRequest) -> ProbeReport:
        """Say whether this config is usable now. *Defaulted*: the config parses, nothing else was checked.

        Called when somebody asks, and before acquire where the environment says ``require_probe``. Creates nothing. Returns a
        `ProbeReport` and does not raise for an unusable environment: that is ``ok=False`` with diagnostics that say what to do
        next.
        """

    @hookspec(firstresult=True)
    def realize(self, request: RealizeRequest) -> RealizeResult:
        """Say where the workspace's root is and make it exist; move no bytes. *Defaulted*: ``mkdir -p`` under ``remote_path``.

        Called after acquire, and maybe again on an active lease: it gives the same root. With ``request.clean`` the root is empty
        afterwards. Returns a `RealizeResult`; raise `Unsupported` for a transfer that you do not offer, `InvalidArgument` for a
        ``local_path`` that is not there.
        """

    @hookspec(firstresult=True)
    def upload(self, request: UploadRequest, stream: AsyncIterator[bytes]) -> None:
        """Unpack an archive stream under ``request.path``. *Defaulted*: ``tar`` over ``execute``.

        Called after realize, when a workspace or a file is sent. ``stream`` gives POSIX tar bytes made by the core from a checked
        selection. Returns nothing, and only when all of it is there; otherwise raise, and what was unpacked so far may stay.
        """

    @hookspec(firstresult=True)
    def download(self, request: DownloadRequest) -> AsyncIterator[bytes]:
        """Pack ``request.path`` into an archive stream. *Defaulted*: ``tar`` over ``execute``.

        Called when changes or files are brought back. Returns the stream of POSIX tar bytes; it is hostile input to the core,
        which extracts it safely. Raise when the path cannot be read, also in the middle: a stream that just ends is complete.
        """

    @hookspec(firstresult=True)
    def resume(self, request: ResumeRequest) -> AcquireResult:
        """Take a kept or stopped resource up again. *Optional.*

        Called on a committed row in state ``acquiring`` whose resource an earlier lease left. Returns what `acquire` would.
        Raise `Unavailable` (cannot be reached now), `Refused` (will not be given to us) or `Gone` (proven not to exist):
        the core does three different things.
        """

    @hookspec(firstresult=True)
    def inventory(self, request: InventoryRequest) -> list[InventoryItem]:
        """List every resource that carries ``request.installation_id``'s label, and no other. *Optional.*

        Called by sweeps, which act on what it returns: a listing that may be incomplete raises instead.
        """

    @hookspec(firstresult=True)
    def connection(self, request: ConnectionRequest) -> ConnectionInfo:
        """Say how a person attaches: a command to paste, ports. *Optional.*

        Called on an active lease when somebody asks. Returns a command to paste and published ports, with no secrets in them.
        Raise `Gone` or `Unavailable` when there is nothing to attach to.
        """

    @hookspec(firstresult=True)
    def upgrade_config(self, from_version: int, data: JsonObject) -> JsonObject:
        """Bring a stored config of an older ``config_version`` up to the current one. *Optional*, a plain ``def``, pure.

        Called with what is stored, before it is parsed; secrets are references in it. Returns the whole new config. Raise
        `InvalidConfig` when that cannot be done.
        """

    @hookspec(firstresult=True)
    def close(self) -> None:
        """Drop pooled connections. *Optional*.

        Called when the orchestrator closes; may never be called, and the driver may be used again afterwards. Returns nothing;
        what it raises is logged and changes nothing.
        """


class PluginSpec:
    """The hooks of a plugin that is not a driver."""

    @hookspec
    def admit(self, operation: Operation) -> Awaitable[None]:
        """Allow an operation by returning, deny it by raising. ``async def``. Called before anything is written or leased."""

    @hookspec
    def around(self, operation: Operation, call_next: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Wrap a hook call of a driver: tracing, policy, fault injection. ``async def``.

        Called in the place of the hook; awaits ``call_next()`` once and returns its answer. What it raises counts as the
        driver's answer.
        """

    @hookspec
    def on_activity(self, event: ActivityEvent) -> None:
        """See an activity after its commit.

        Called once for each. A plain ``def`` that must not block. Returns nothing; what it raises is logged and changes nothing.
        """

    @hookspec
    def resolve_secret(self, reference: str) -> Any:
        """Give the value of a secret reference, or None when the scheme is not yours.

        Called just before each driver call whose config or env has such a reference. Returns a ``str``, or an awaitable of one;
        raise `InvalidConfig` when the scheme is yours and there is no such secret.
        """

    @hookspec
    def adapters(self) -> Iterable[AdapterSpec]:
        """Name adapters and the transports they can run over. A plain ``def``, pure.

        Called once, when the plugin is loaded. Returns any number of `AdapterSpec`; nothing to raise.
        """


DRIVER_HOOKS: tuple[str, ...] = tuple(name for name in vars(DriverSpec) if not name.startswith("_"))
REQUIRED_HOOKS: tuple[str, ...] = ("driver_info", "acquire", "execute", "release", "target")
PURE_HOOKS: tuple[str, ...] = ("driver_info", "target", "upgrade_config")
PLUGIN_HOOKS: tuple[str, ...] = tuple(name for name in vars(PluginSpec) if not name.startswith("_"))
