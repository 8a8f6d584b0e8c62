"""A driver whose resources are directories; see the README for what it is and is not."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import attrs

import sojourn
from sojourn import hookimpl
from sojourn_example_scratch.commands import end_processes, run_command

__all__ = ["ScratchConfig", "ScratchDriver"]


@attrs.frozen(kw_only=True)
class ScratchConfig:
    """Where the directories are."""

    root: str


class ScratchDriver:
    """Gives each lease a directory of its own."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], asyncio.Future[sojourn.CommandOutcome]] = {}

    @hookimpl
    def driver_info(self) -> sojourn.DriverInfo:
        """Say what this driver is."""
        return sojourn.DriverInfo(
            name="scratch",
            version="0.1.0",
            provider="scratch",
            isolation="none",
            transport="local",
            config_class=ScratchConfig,
            late_effects=False,
        )

    @hookimpl
    def acquire(self, request: sojourn.AcquireRequest) -> sojourn.AcquireResult:
        """Make the directory, labels inside, in one step; or find it."""
        place = _place(request)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
        (draft / "work").mkdir()
        (draft / "about.json").write_text(json.dumps({**request.labels, "spec": request.spec}), encoding="utf-8")
        try:
            draft.rename(place)
        except OSError:
            # It is there: from an earlier call, or from one that was faster.
            shutil.rmtree(draft)
        if _about(place, request)["spec"] != request.spec:
            raise sojourn.Conflict(f"{place} was made for another spec")
        return sojourn.AcquireResult(handle={"version": 1, "place": str(place)}, remote_cwd=str(place / "work"))

    @hookimpl
    async def execute(self, request: sojourn.ExecuteRequest, io: sojourn.CommandIO) -> sojourn.CommandOutcome:
        """Run a command in the directory; the same ``exec_id`` twice is one run."""
        place = _place(request)
        _about(place, request)
        cwd = request.cwd or str(place / "work")
        if not Path(cwd).is_dir():
            raise sojourn.InvalidArgument(f"working directory {cwd!r} does not exist")
        if request.user is not None:
            raise sojourn.InvalidArgument(f"commands run as the current user, not as {request.user!r}")
        run = self._runs.get((request.resource_id, request.exec_id))
        if run is None:
            run = asyncio.ensure_future(run_command(request, io, cwd))
            self._runs[request.resource_id, request.exec_id] = run
            # A cancelled first caller ends the command; see `run_command`.
            return await run
        return await asyncio.shield(run)

    @hookimpl
    def release(self, request: sojourn.ReleaseRequest) -> sojourn.ReleaseReceipt:
        """End what runs; remove the directory unless it is kept."""
        place = _place(request)
        try:
            _about(place, request)
        except sojourn.Gone:
            return sojourn.ReleaseReceipt(state=sojourn.ResourceState.GONE)
        end_processes(request.resource_id)
        if request.disposition is not sojourn.Disposition.DESTROY:
            return sojourn.ReleaseReceipt(state=sojourn.ResourceState.STOPPED, handle=request.handle)
        shutil.rmtree(place, ignore_errors=True)
        if place.exists():
            raise sojourn.Unavailable(f"{place} cannot be removed completely")
        return sojourn.ReleaseReceipt(state=sojourn.ResourceState.GONE)

    @hookimpl
    def target(self, request: sojourn.TargetRequest) -> sojourn.LocalTarget:
        """Give the transport facts."""
        return sojourn.LocalTarget(cwd=request.cwd)

    @hookimpl
    def inventory(self, request: sojourn.InventoryRequest) -> list[sojourn.InventoryItem]:
        """List the directories that carry the installation's label."""
        items = []
        for file in Path(request.config.root).glob("[!.]*/about.json"):
            about = json.loads(file.read_text(encoding="utf-8"))
            if about["sojourn.installation"] == request.installation_id:
                epoch = int(about["sojourn.created-epoch"])
                name = about["sojourn.resource"]
                items.append(
                    sojourn.InventoryItem(resource_id=name, created_epoch=epoch, created_at=None, state="running")
                )
        return items


def _place(request: sojourn.AcquireRequest | sojourn.ExecuteRequest | sojourn.ReleaseRequest) -> Path:
    return Path(request.config.root) / request.resource_id


def _about(
    place: Path, request: sojourn.AcquireRequest | sojourn.ExecuteRequest | sojourn.ReleaseRequest
) -> dict[str, str]:
    """Return what the directory says of itself.

    Raises:
        Gone: it is not there.
        Conflict: it is another installation's.
    """
    try:
        about: dict[str, str] = json.loads((place / "about.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise sojourn.Gone(f"{place} does not exist") from None
    if about["sojourn.installation"] != request.installation_id:
        raise sojourn.Conflict(f"{place} belongs to another installation")
    return about
