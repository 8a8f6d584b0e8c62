"""The local driver: its hooks, each one a few steps over the modules beside it.

Hooks that only touch files are plain functions, which the core runs in threads; `execute` lives in the event loop.
"""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sojourn import (
    AcquireRequest,
    AcquireResult,
    CommandIO,
    CommandOutcome,
    ConnectionInfo,
    ConnectionRequest,
    Disposition,
    DriverInfo,
    ExecuteRequest,
    Gone,
    InventoryItem,
    InventoryRequest,
    LocalTarget,
    ProbeReport,
    ProbeRequest,
    RealizeRequest,
    RealizeResult,
    ReleaseReceipt,
    ReleaseRequest,
    ResourceState,
    TargetRequest,
    Unsupported,
    hookimpl,
)
from sojourn_local import __version__
from sojourn_local.config import LocalConfig
from sojourn_local.ending import end_all, has_living_supervisor
from sojourn_local.leases import Lease
from sojourn_local.monitor import PROOF_SECONDS
from sojourn_local.probing import inspect
from sojourn_local.resources import Resource, make_root, resource_ids
from sojourn_local.workspaces import in_place_root

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalDriver"]

_SHELL_SCRIPT = 'cd -- "$1" && exec "${SHELL:-/bin/sh}"'


class LocalDriver:
    """Runs commands on this machine; see the package's README for what that guarantees and what it cannot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leases: dict[Path, Lease] = {}

    @hookimpl
    def driver_info(self) -> DriverInfo:
        """Say what this driver is."""
        return DriverInfo(
            name="local",
            version=__version__,
            provider="local",
            transport="local",
            isolation="none",
            config_class=LocalConfig,
            transfers=("in_place", "copy"),
            fencing=True,
            # What a call of a dead process did is on this machine, and there for everybody to see.
            late_effects=False,
        )

    @hookimpl
    def acquire(self, request: AcquireRequest) -> AcquireResult:
        """Make the resource's directory, or find it."""
        if not sys.platform.startswith("linux"):
            raise Unsupported(f"the local driver needs Linux (subreapers and /proc); this is {sys.platform}")
        resource = self._resource(request, make_root(request.config))
        resource.create(request.spec, request.epoch)
        resource.check_epoch(request.epoch)
        if resource.marker().epoch < request.epoch:
            with resource.gate(request.epoch):
                resource.note_epoch(request.epoch)
                end_all(resource.directory, request.config.release_grace_seconds)
        return AcquireResult(
            handle={"version": 1, "root": str(resource.root)},
            remote_cwd=str(resource.workspace) if request.transfer == "copy" else None,
            metadata={"directory": str(resource.directory)},
        )

    @hookimpl
    def realize(self, request: RealizeRequest) -> RealizeResult:
        """Give the caller's own tree (in place), or a workspace inside the resource."""
        resource = self._resource(request)
        resource.check_epoch(request.epoch)
        if request.transfer == "in_place" and request.local_path is not None:
            return RealizeResult(cwd=in_place_root(request.local_path, request.config))
        return RealizeResult(cwd=str(resource.make_workspace(clean=request.clean)))

    @hookimpl
    def target(self, request: TargetRequest) -> LocalTarget:
        """Give the transport facts."""
        return LocalTarget(cwd=request.cwd)

    @hookimpl
    async def execute(self, request: ExecuteRequest, io: CommandIO) -> CommandOutcome:
        """Run one command under the lease's supervisor."""
        lease = self._lease(request)
        lease.resource.check_epoch(request.epoch)
        return await lease.execute_once(request, io)

    @hookimpl
    def release(self, request: ReleaseRequest) -> ReleaseReceipt:
        """End every process of the resource, prove it, and remove the directory when it is to be destroyed."""
        resource = self._resource(request)
        destroy = request.disposition is Disposition.DESTROY
        try:
            with resource.gate(request.epoch):
                resource.note_epoch(request.epoch)
                self._end_processes(resource, request.config)
                if destroy:
                    resource.remove()
        except Gone:
            self._end_processes(resource, request.config)
            destroy = True
        if not destroy:
            return ReleaseReceipt(state=ResourceState.STOPPED, handle=request.handle)
        resource.remove_drafts()
        return ReleaseReceipt(state=ResourceState.GONE)

    def _end_processes(self, resource: Resource, config: LocalConfig) -> None:
        end_all(resource.directory, config.release_grace_seconds)
        with self._lock:
            lease = self._leases.pop(resource.directory, None)
        if lease is not None:
            lease.supervision.end(config.release_grace_seconds + PROOF_SECONDS)

    @hookimpl
    def probe(self, request: ProbeRequest) -> ProbeReport:
        """Look whether commands can be run and ended here; creates nothing."""
        return inspect(request.config)

    @hookimpl
    def inventory(self, request: InventoryRequest) -> list[InventoryItem]:
        """List the directories whose marker names this installation."""
        root = request.config.root_path()
        items = (self._item(Resource(root, name, request.installation_id)) for name in resource_ids(root))
        return [item for item in items if item is not None]

    def _item(self, resource: Resource) -> InventoryItem | None:
        marker = resource.own_marker()
        if marker is None:
            return None
        return InventoryItem(
            resource_id=resource.resource_id,
            created_epoch=marker.created_epoch,
            created_at=datetime.fromtimestamp(marker.created_at, UTC),
            state="running" if has_living_supervisor(resource.directory) else "stopped",
        )

    @hookimpl
    def connection(self, request: ConnectionRequest) -> ConnectionInfo:
        """Give a command that opens a shell where the commands run."""
        cwd = request.cwd or str(self._resource(request).directory)
        return ConnectionInfo(command=("sh", "-c", _SHELL_SCRIPT, "sh", cwd))

    @hookimpl
    def close(self) -> None:
        """End the supervisors that this process started, with what they run."""
        with self._lock:
            leases, self._leases = list(self._leases.values()), {}
        for lease in leases:
            lease.supervision.hang_up()
        for lease in leases:
            lease.supervision.end(lease.supervision.grace_seconds + PROOF_SECONDS)

    def _lease(self, request: ExecuteRequest) -> Lease:
        resource = self._resource(request)
        with self._lock:
            lease = self._leases.get(resource.directory)
            if lease is None or lease.resource.installation != request.installation_id:
                lease = self._leases[resource.directory] = Lease(resource, request.config.release_grace_seconds)
            return lease

    def _resource(self, request: _OneResource, root: Path | None = None) -> Resource:
        if root is None:
            handle = request.handle or {}
            # Where it was made: the environment's root may have been edited since.
            root = Path(handle["root"]) if "root" in handle else request.config.root_path()
        return Resource(root, request.resource_id, request.installation_id)


class _OneResource(Protocol):
    """What the requests about one resource have in common, as far as it is needed here."""

    @property
    def installation_id(self) -> str: ...
    @property
    def resource_id(self) -> str: ...
    @property
    def config(self) -> Any: ...
    @property
    def handle(self) -> Mapping[str, Any] | None: ...
