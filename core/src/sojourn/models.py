"""Records that cross the driver border: requests, results and execution targets.

All are frozen and JSON-able through `sojourn.wire`. Live things (streams, the stop signal) travel beside a request, never
in it; a config travels as the driver's own attrs object whose secrets are resolved, and serialises to their references.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import attrs

from sojourn.errors import CommandFailed

__all__ = [
    "API_VERSION",
    "AcquireRequest",
    "AcquireResult",
    "Actor",
    "CommandIO",
    "CommandOutcome",
    "ConnectionInfo",
    "ConnectionRequest",
    "CustomTarget",
    "Diagnostic",
    "Disposition",
    "DownloadRequest",
    "DriverInfo",
    "ExecuteRequest",
    "ExecuteResult",
    "InventoryItem",
    "InventoryRequest",
    "Isolation",
    "JsonObject",
    "LocalTarget",
    "Outcome",
    "ProbeReport",
    "ProbeRequest",
    "RealizeRequest",
    "RealizeResult",
    "ReleaseReceipt",
    "ReleaseRequest",
    "ResourceRequest",
    "ResourceState",
    "ResumeRequest",
    "RunContext",
    "SandboxTarget",
    "SshTarget",
    "StopReason",
    "StopSignal",
    "Stream",
    "Target",
    "TargetRequest",
    "Transfer",
    "UploadRequest",
]

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object: string keys; values are None, bool, int, finite float, str, list or object. Checked by a round trip."""

Isolation: TypeAlias = Literal["none", "process", "container", "vm"]
Transfer: TypeAlias = Literal["copy", "in_place"]
Stream: TypeAlias = Literal["stdout", "stderr"]

API_VERSION = "1.0"
"""Version of the driver contract. A driver written for another major version is not loaded."""


class Outcome(StrEnum):
    """How a command ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Nobody knows: the channel broke, or its end could not be proven. Never success, never run again by itself."""


class StopReason(StrEnum):
    """Why the core asks a driver to end a command."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"


class Disposition(StrEnum):
    """What a release does with the resource."""

    KEEP = "keep"
    STOP = "stop"
    DESTROY = "destroy"


class ResourceState(StrEnum):
    """What is true of a resource now, as far as the driver can prove it."""

    RUNNING = "running"
    STOPPED = "stopped"
    GONE = "gone"


@attrs.frozen(kw_only=True)
class RunContext:
    """For whom a lease is held; stored with the lease and shown unchanged to every hook, also by a later sweep.

    ``agent_id`` has no default on purpose: every call site has to think about it. It is None only where no agent is
    concerned (operator tests), and is then left out on the wire.
    """

    tenant: str
    run_id: str | None
    agent_id: str | None
    issue_id: str | None = None
    execution_workspace_id: str | None = None
    execution_workspace_mode: str | None = None
    trace: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Actor:
    """Who acts now: an agent, an operator at the command line, or sojourn itself (a sweep)."""

    type: Literal["agent", "operator", "system"]
    id: str | None = None


@attrs.frozen(kw_only=True)
class DriverInfo:
    """What a driver says about itself; asked once per load, pure.

    Args:
        name: must equal the entry point name.
        version: of the driver's distribution.
        api_version: of the contract it was written for, `API_VERSION` at that time.
        provider: what stands behind its resources, for records (``local``, ``ssh``, ``docker``).
        isolation: the strongest border between a command and the machine it runs on.
        transport: of the targets it gives (``local``, ``ssh``, ``sandbox``, or a word of its own); adapters are matched with it.
        config_class: a frozen attrs class; secrets in it are typed `sojourn.Secret`.
        config_version: raised whenever stored configs need `upgrade_config`.
        transfers: how a workspace can get there; the first is the driver's default.
        fencing: the current epoch is kept inside the resource, so that a stale holder is refused there too.
        holds_nothing: acquire makes nothing that could leak.
        late_effects: a call may still take effect after the process that made it is dead (a request was on its way).
        real_processes: commands are operating system processes (False only for fakes).
    """

    name: str
    version: str
    provider: str
    isolation: Isolation
    transport: str
    config_class: type[Any]
    api_version: str = API_VERSION
    config_version: int = 1
    transfers: tuple[Transfer, ...] = ("copy",)
    fencing: bool = False
    holds_nothing: bool = False
    late_effects: bool = True
    real_processes: bool = True


# -- requests ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class HookRequest:
    """What every request carries.

    Args:
        installation_id: this sojourn installation; part of the label of everything we make.
        environment_id: the stored environment, or None for a draft that is only probed.
        config: the driver's config object, secrets resolved.
        context: for whom the lease is held.
        actor: who acts now.
        timeout_seconds: the deadline of this call; the core cancels the hook when it is over. For ``execute`` it is the
            command's own time limit, enforced inside the environment. None means no limit.
    """

    installation_id: str
    environment_id: str | None
    config: Any
    context: RunContext
    actor: Actor
    timeout_seconds: float | None


@attrs.frozen(kw_only=True)
class ProbeRequest(HookRequest):
    """Ask whether a config is usable now."""


@attrs.frozen(kw_only=True)
class InventoryRequest(HookRequest):
    """Ask for all resources labelled with ``installation_id``."""


@attrs.frozen(kw_only=True)
class ResourceRequest(HookRequest):
    """What every request about one resource carries.

    Args:
        resource_id: the core's name of the resource, at most 63 characters of ``[a-z0-9-]``; it never changes.
        lease_id: the lease under which the core acts.
        epoch: the fencing number, rising along the chain of leases of one resource.
        handle: what acquire, resume or release(keep, stop) returned last; None when it is not known.
    """

    resource_id: str
    lease_id: str
    epoch: int
    handle: JsonObject | None


@attrs.frozen(kw_only=True)
class AcquireRequest(ResourceRequest):
    """Get or create the resource named ``resource_id``. ``handle`` is None.

    Args:
        spec: a fingerprint of what is asked for; the same ``resource_id`` with another spec is a ``Conflict``.
        transfer: how the workspace will get there.
        requested_expires_at: bound the resource's life at or before this time, or leave ``AcquireResult.expires_at`` None.
    """

    spec: str
    transfer: Transfer
    requested_expires_at: datetime | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels to set **in** the create call: installation, resource id, created epoch."""
        return {
            "sojourn.installation": self.installation_id,
            "sojourn.resource": self.resource_id,
            "sojourn.created-epoch": str(self.epoch),
        }


@attrs.frozen(kw_only=True)
class ResumeRequest(ResourceRequest):
    """Take a kept or stopped resource up again under a new epoch."""


@attrs.frozen(kw_only=True)
class RealizeRequest(ResourceRequest):
    """Say where the workspace's root is, and make it exist.

    Args:
        transfer: ``copy`` (a root of the driver's own) or ``in_place`` (the tree is there already).
        local_path: the caller's tree on this machine, absolute, or None when the run brings none.
        remote_path: where the lease's metadata says the root is (``remote_cwd``), or None.
        clean: whether left-overs of an earlier lease in the root have to go.
    """

    transfer: Transfer
    local_path: str | None
    remote_path: str | None
    clean: bool = False


@attrs.frozen(kw_only=True)
class TargetRequest(ResourceRequest):
    """Ask for the transport facts; ``cwd`` is None before the workspace is realized."""

    cwd: str | None


@attrs.frozen(kw_only=True)
class ExecuteRequest(ResourceRequest):
    """Run one command.

    Args:
        exec_id: unique; the same id twice is one run.
        argv: program and arguments, at least one word, no NUL. There is no shell unless the caller names one.
        cwd: absolute, or None for the realized root.
        env: on top of the driver's base environment; names match ``[A-Za-z_][A-Za-z0-9_]*``. Values may be secret.
        user: run as this user, or None for the driver's default.
        grace_seconds: between TERM and KILL.
        output_limit_bytes: how much of each stream the caller keeps; for information, the core does the cutting.
    """

    exec_id: str
    argv: tuple[str, ...]
    cwd: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    user: str | None = None
    grace_seconds: float = 5.0
    output_limit_bytes: int = 8 * 1024 * 1024


@attrs.frozen(kw_only=True)
class UploadRequest(ResourceRequest):
    """Unpack an archive stream (POSIX tar) under ``path``, absolute in the environment."""

    path: str


@attrs.frozen(kw_only=True)
class DownloadRequest(ResourceRequest):
    """Pack ``path``, absolute in the environment, into an archive stream (POSIX tar)."""

    path: str


@attrs.frozen(kw_only=True)
class ReleaseRequest(ResourceRequest):
    """End the lease at the provider. Works without a handle; absence is success."""

    disposition: Disposition


@attrs.frozen(kw_only=True)
class ConnectionRequest(ResourceRequest):
    """Ask how a person attaches to the resource; ``cwd`` is the realized root, where there is one."""

    cwd: str | None


# -- results ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Diagnostic:
    """One finding of a probe, with what to do next."""

    level: Literal["info", "warning", "error"]
    message: str
    hint: str | None = None


@attrs.frozen(kw_only=True)
class ProbeReport:
    """Whether a config is usable now; a probe does not raise for an unusable environment."""

    ok: bool
    summary: str
    diagnostics: tuple[Diagnostic, ...] = ()
    details: JsonObject = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class AcquireResult:
    """What acquire and resume found or made.

    Args:
        handle: opaque JSON for later calls, at most 16 KiB, no secrets.
        provider_lease_id: the provider's own name of the resource, for people (container id, ``ssh://…``).
        remote_cwd: where the workspace will be, if that is known already.
        metadata: further facts for records; strings that equal a resolved secret are dropped before storing.
        expires_at: when the provider ends the resource by itself; None where it cannot be bounded.
    """

    handle: JsonObject
    provider_lease_id: str | None = None
    remote_cwd: str | None = None
    metadata: JsonObject = attrs.field(factory=dict)
    expires_at: datetime | None = None


@attrs.frozen(kw_only=True)
class RealizeResult:
    """Where the workspace's root is in the environment (absolute), and further facts for records."""

    cwd: str | None
    metadata: JsonObject = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class CommandOutcome:
    """What a driver says of a command that ended; the core adds the output and makes an `ExecuteResult` of it.

    Args:
        outcome: how it ended.
        exit_code: for ``exited`` the status, for ``signaled`` 128 + the signal's number, else None.
        signal: the signal's name (``SIGKILL``), only when it is proven.
        output_complete: every byte the command wrote was passed on.
        kill_confirmed: after a stop: the whole process tree is proven gone.
        started_at: when it started, as far as the driver knows; aware.
        duration: from start to end, as far as the driver knows.
        detail: a sentence for people, e.g. why it was lost.
    """

    outcome: Outcome
    exit_code: int | None = None
    signal: str | None = None
    output_complete: bool = True
    kill_confirmed: bool = False
    started_at: datetime | None = None
    duration: timedelta | None = None
    detail: str | None = None


@attrs.frozen(kw_only=True)
class ReleaseReceipt:
    """What is true of the resource now. ``gone`` only when it is proven."""

    state: ResourceState
    handle: JsonObject | None = None
    detail: str | None = None


@attrs.frozen(kw_only=True)
class InventoryItem:
    """One resource that carries this installation's label."""

    resource_id: str
    created_epoch: int
    created_at: datetime | None
    state: Literal["running", "stopped"]


@attrs.frozen(kw_only=True)
class ConnectionInfo:
    """How a person attaches: a command to paste, and published ports (inside → outside)."""

    command: tuple[str, ...]
    ports: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class LocalTarget:
    """Commands run on this machine."""

    transport: ClassVar[str] = "local"
    cwd: str | None


@attrs.frozen(kw_only=True)
class SshTarget:
    """Commands run over ssh; ``private_key`` is a secret reference."""

    transport: ClassVar[str] = "ssh"
    host: str
    port: int
    username: str
    cwd: str | None
    private_key: str | None = None
    known_hosts: str | None = None


@attrs.frozen(kw_only=True)
class SandboxTarget:
    """Commands run inside a provider's sandbox."""

    transport: ClassVar[str] = "sandbox"
    provider: str
    cwd: str | None
    shell: str = "/bin/sh"


@attrs.frozen(kw_only=True)
class CustomTarget:
    """Anything else; ``transport`` is a word that adapters know."""

    transport: str
    cwd: str | None
    facts: JsonObject = attrs.field(factory=dict)


Target: TypeAlias = LocalTarget | SshTarget | SandboxTarget | CustomTarget


@attrs.frozen(kw_only=True)
class ExecuteResult:
    """What became of a command. Nothing is raised for it; `check` does when that is wanted.

    Args:
        exec_id: of this run of the command.
        outcome: how it ended.
        exit_code: for ``exited`` the status, for ``signaled`` 128 + the signal's number, else None.
        signal: the signal's name, only when proven.
        stdout: what was kept of it; past the limit the first and the last half.
        stderr: the same.
        stdout_dropped_bytes: how much of stdout was left out in the middle.
        stderr_dropped_bytes: how much of stderr was left out in the middle.
        output_complete: every byte that the command wrote reached us (the dropped ones were counted).
        started_at: aware, UTC.
        duration: from start to end.
        kill_confirmed: after a stop: the whole process tree is proven gone.
        detail: a sentence for people, e.g. why the command was lost.
    """

    exec_id: str
    outcome: Outcome
    exit_code: int | None
    signal: str | None
    stdout: bytes = attrs.field(repr=False)
    stderr: bytes = attrs.field(repr=False)
    stdout_dropped_bytes: int
    stderr_dropped_bytes: int
    output_complete: bool
    started_at: datetime
    duration: timedelta
    kill_confirmed: bool
    detail: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command exited with status 0."""
        return self.outcome is Outcome.EXITED and self.exit_code == 0

    def check(self) -> ExecuteResult:
        """Return the result itself if the command exited with 0.

        Raises:
            CommandFailed: in every other case, a lost command included.
        """
        if self.ok:
            return self
        how = (
            f"exited with {self.exit_code}" if self.outcome is Outcome.EXITED else self.outcome.value.replace("_", " ")
        )
        if self.signal:
            how += f" by {self.signal}"
        tail = self.stderr[-2000:].decode("utf-8", "replace").strip()
        raise CommandFailed(
            f"command {self.exec_id} {how}" + (f"; the end of its stderr:\n{tail}" if tail else ""), self
        )


# -- live things ------------------------------------------------------------------------------------------------------


class StopSignal(Protocol):
    """How the core asks a running ``execute`` to end its command's whole process tree."""

    @property
    def reason(self) -> StopReason | None:
        """Why, once it is set; None before."""

    def is_set(self) -> bool:
        """Whether the command has to end now."""

    async def wait(self) -> StopReason:
        """Wait until it is set; give the reason."""


class CommandIO(Protocol):
    """The live side of ``execute``. A plain ``def`` hook gets `sojourn.execution.BlockingCommandIO` instead."""

    @property
    def stdin(self) -> AsyncIterator[bytes] | None:
        """What to feed to the command, then close its stdin; None means an empty stdin (``/dev/null``)."""

    @property
    def stop(self) -> StopSignal:
        """Set by the core when the command has to end."""

    async def write(self, stream: Stream, data: bytes) -> None:
        """Pass output on, in order. Returns when there is room for more: waiting here is the back-pressure."""
