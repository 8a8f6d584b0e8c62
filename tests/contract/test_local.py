"""The local driver keeps the contract on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from sojourn.testing import Capabilities, DriverContract, HostBackDoor
from sojourn_local import LocalDriver


class LocalBackDoor(HostBackDoor):
    """Resources are directories."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resource_exists(self, resource_id: str) -> bool:
        return (self.root / resource_id).exists()

    def destroy_resource(self, resource_id: str) -> None:
        shutil.rmtree(self.root / resource_id)


class TestLocal(DriverContract):
    capabilities = Capabilities(parallel=True, survives_restart=True, keeps_files=True, host_processes=True)
    heavy_modules = ("sqlalchemy", "alembic", "click")
    # A root that others could write to; a probe has to say so.
    unusable_config: ClassVar = {"root": "/dev/null"}

    def make_driver(self) -> LocalDriver:
        return LocalDriver()

    def make_config(self, tmp_path: Path) -> dict[str, object]:
        return {"root": str(tmp_path / "root"), "release_grace_seconds": 0.5}

    def back_door(self, tmp_path: Path) -> LocalBackDoor:
        return LocalBackDoor(tmp_path / "root")
