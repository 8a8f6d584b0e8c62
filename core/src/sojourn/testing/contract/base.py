"""What the author of a driver gives to the contract, and the fixture that every clause runs in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sojourn.testing.backdoor import BackDoor, HostBackDoor
from sojourn.testing.capabilities import Capabilities
from sojourn.testing.kit import Kit
from sojourn.testing.programs import PosixPrograms, Programs

__all__ = ["ContractBase"]

MIB = 1024 * 1024


class ContractBase:
    """What a subclass gives. Only `make_driver` and `make_config` have to be written.

    Attributes:
        capabilities: what the driver can do that no hook says.
        programs: what the clauses run.
        heavy_modules: modules that importing the driver's module must not import, e.g. the provider's library.
        unusable_config: a config that parses and whose probe must say no; None if there is none.
        bulk_bytes: how much data the clauses about volume move (a multiple of 64 KiB).
        patience: factor on every time limit, for places that are far away.
        expected_failures: clauses that are known to fail, each with a link to where that is followed up.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    programs: ClassVar[Programs] = PosixPrograms()
    heavy_modules: ClassVar[tuple[str, ...]] = ()
    unusable_config: ClassVar[Mapping[str, Any] | None] = None
    bulk_bytes: ClassVar[int] = 50 * MIB
    patience: ClassVar[float] = 1.0
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def make_driver(self) -> object:
        """Return a new driver object. Called again within a test for "another process": only what is outside is shared."""
        raise NotImplementedError

    def make_config(self, tmp_path: Path) -> Mapping[str, Any]:
        """Return a config as a person would write it: plain JSON, with references of secrets.

        Args:
            tmp_path: a directory for this test; it need not exist yet.
        """
        raise NotImplementedError

    def make_workspace(self, path: Path) -> None:
        """Make the caller's tree at ``path``."""
        path.mkdir()
        (path / "README").write_text("a workspace\n", encoding="utf-8")

    def back_door(self, tmp_path: Path) -> BackDoor | None:
        """Return a way to look at the world without the driver, or None.

        Args:
            tmp_path: what `make_config` got.
        """
        return HostBackDoor() if self.capabilities.host_processes else None

    @pytest.fixture
    def kit(self) -> Iterator[Kit]:
        """Make the surroundings of one clause."""
        kit = Kit(self, pytest.skip)
        yield kit
        kit.remove()
