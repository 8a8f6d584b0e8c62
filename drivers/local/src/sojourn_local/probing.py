"""Looks whether this machine can run and reliably end commands; creates nothing and never raises for what it finds."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from sojourn import Diagnostic, ProbeReport
from sojourn_local.kernel import get_subreaper
from sojourn_local.proctable import read_process
from sojourn_local.resources import check_root

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn_local.config import LocalConfig

__all__ = ["inspect"]

_LITTLE_SPACE_BYTES = 100 * 1024 * 1024


def inspect(config: LocalConfig) -> ProbeReport:
    """Return what works and what does not, each with what to do next."""
    found = [*_machine(), *_root(config)]
    ok = all(diagnostic.level != "error" for diagnostic in found)
    problems = sum(diagnostic.level == "error" for diagnostic in found)
    summary = "commands can be run and ended on this machine" if ok else f"not usable: {problems} problem(s)"
    return ProbeReport(ok=ok, summary=summary, diagnostics=tuple(found), details={"root": str(config.root_path())})


def _machine() -> list[Diagnostic]:
    if not sys.platform.startswith("linux"):
        hint = "use a remote or a sandbox environment instead"
        return [Diagnostic(level="error", message=f"this is {sys.platform}, the driver needs Linux", hint=hint)]
    found = []
    try:
        get_subreaper()
    except OSError as error:
        hint = "a kernel of 3.4 or later is needed"
        found.append(Diagnostic(level="error", message=f"the kernel offers no subreapers: {error.strerror}", hint=hint))
    if read_process(os.getpid()) is None:
        found.append(Diagnostic(level="error", message="/proc cannot be read", hint="mount /proc in this container"))
    if not sys.executable:
        hint = "run sojourn with a Python interpreter"
        found.append(Diagnostic(level="error", message="the Python interpreter is not known", hint=hint))
    return found


def _root(config: LocalConfig) -> list[Diagnostic]:
    try:
        reason = check_root(config)
        place = _nearest_existing(config.root_path())
        free_bytes = shutil.disk_usage(place).free
    except OSError as error:
        hint = "choose another root"
        return [Diagnostic(level="error", message=f"root {config.root_path()}: {error.strerror}", hint=hint)]
    if reason is not None:
        return [Diagnostic(level="error", message=reason, hint="set root to a directory of your own")]
    if not os.access(place, os.W_OK | os.X_OK):
        hint = "choose another root or change its mode"
        return [Diagnostic(level="error", message=f"{place} cannot be written to", hint=hint)]
    if free_bytes < _LITTLE_SPACE_BYTES:
        message = f"only {free_bytes // 1024**2} MiB are free under {place}"
        return [Diagnostic(level="warning", message=message, hint="make room before large workspaces are copied")]
    return [Diagnostic(level="info", message=f"root {config.root_path()} is usable")]


def _nearest_existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
