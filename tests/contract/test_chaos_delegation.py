"""A chaos driver without faults keeps the contract that its inner driver keeps: it is only in the way where it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sojourn.testing import Capabilities, ChaosDriver, DriverContract, FakeBackDoor, FakeDriver, FakePrograms, FakeWorld


class TestChaosAroundFake(DriverContract):
    capabilities = Capabilities(parallel=True, survives_restart=True, keeps_files=True, other_user="agent")
    programs = FakePrograms()
    unusable_config: ClassVar = {"usable": False}

    def make_driver(self) -> ChaosDriver:
        return ChaosDriver(FakeDriver(world=self.world))

    def make_config(self, tmp_path: Path) -> dict[str, object]:
        return {"label": "contract"}

    def back_door(self, tmp_path: Path) -> FakeBackDoor:
        return FakeBackDoor(self.world)

    @property
    def world(self) -> FakeWorld:
        """One provider for all drivers of a test; pytest makes an object of this class for each."""
        return self.__dict__.setdefault("_world", FakeWorld())
