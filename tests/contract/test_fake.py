"""The fake driver keeps the contract, so that what is tested with it is tested with a driver."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sojourn.testing import Capabilities, DriverContract, FakeBackDoor, FakeDriver, FakePrograms, FakeWorld


class TestFake(DriverContract):
    capabilities = Capabilities(parallel=True, survives_restart=True, keeps_files=True, other_user="agent")
    programs = FakePrograms()
    heavy_modules = ("pytest", "sqlalchemy", "click")
    unusable_config: ClassVar = {"usable": False}

    def make_driver(self) -> FakeDriver:
        return FakeDriver(world=self.world)

    def make_config(self, tmp_path: Path) -> dict[str, object]:
        secret = tmp_path.with_name("token")
        secret.write_text("a secret of the contract", encoding="utf-8")
        return {"label": "contract", "token": f"file:{secret}"}

    def back_door(self, tmp_path: Path) -> FakeBackDoor:
        return FakeBackDoor(self.world)

    @property
    def world(self) -> FakeWorld:
        """One provider for all drivers of a test; pytest makes an object of this class for each."""
        return self.__dict__.setdefault("_world", FakeWorld())
