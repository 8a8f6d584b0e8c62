"""sojourn gives each run of an AI agent a place to execute.

Everything named in ``__all__`` is public and covered by the version number. Names are imported when they are first used, so
that ``import sojourn`` costs next to nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # instead of importing typing, which costs more than all the rest here
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_WHERE: dict[str, tuple[str, ...]] = {
    "sojourn.errors": (
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
    ),
    "sojourn.hooks": ("hookimpl",),
    "sojourn.models": (
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
    ),
    "sojourn.orchestrator": ("Acquisition", "LeaseContext", "LeaseTerms", "Orchestrator", "Realization"),
    "sojourn.paths": ("state_dir",),
    "sojourn.realization_records": (
        "Overlay",
        "ProvisionRecord",
        "RealizationRecord",
        "RealizationRequest",
        "Workspace",
        "read_record",
        "read_request",
    ),
    "sojourn.reaping": ("ReapItem", "ReapReport", "SweepsOff"),
    "sojourn.records": (
        "ActivityEvent",
        "AdapterSpec",
        "CleanupStatus",
        "Environment",
        "EnvironmentStatus",
        "ExecutionWorkspace",
        "Lease",
        "LeaseOutcome",
        "LeasePolicy",
        "LeaseStatus",
        "Operation",
    ),
    "sojourn.releasing": ("LeaseError", "ReleaseReport"),
    "sojourn.resolution": ("UNSET", "LevelTrace", "Resolution", "Selection", "Unset"),
    "sojourn.secrets": ("Secret",),
    "sojourn.session": ("PIPE", "AttachedLease", "Command", "Pipe", "Session"),
    "sojourn.settings": ("Settings",),
    "sojourn.streams": ("BlockingCommandIO", "Chunk"),
    "sojourn.targets": ("ExecutionTarget",),
    "sojourn.variables": ("Variables",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - every name comes from the table above


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sojourn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from sojourn.errors import *  # noqa: F403
    from sojourn.hooks import hookimpl as hookimpl
    from sojourn.models import *  # noqa: F403
    from sojourn.orchestrator import *  # noqa: F403
    from sojourn.paths import state_dir as state_dir
    from sojourn.realization_records import *  # noqa: F403
    from sojourn.reaping import ReapItem as ReapItem
    from sojourn.reaping import ReapReport as ReapReport
    from sojourn.reaping import SweepsOff as SweepsOff
    from sojourn.records import *  # noqa: F403
    from sojourn.releasing import LeaseError as LeaseError
    from sojourn.releasing import ReleaseReport as ReleaseReport
    from sojourn.resolution import UNSET as UNSET
    from sojourn.resolution import LevelTrace as LevelTrace
    from sojourn.resolution import Resolution as Resolution
    from sojourn.resolution import Selection as Selection
    from sojourn.resolution import Unset as Unset
    from sojourn.secrets import Secret as Secret
    from sojourn.session import *  # noqa: F403
    from sojourn.settings import Settings as Settings
    from sojourn.streams import BlockingCommandIO as BlockingCommandIO
    from sojourn.streams import Chunk as Chunk
    from sojourn.targets import ExecutionTarget as ExecutionTarget
    from sojourn.variables import Variables as Variables
