"""For tests: a driver in memory, a driver that misbehaves as told, and the contract that every driver has to keep.

Names are imported when they are first used; only `DriverContract` needs pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE: dict[str, tuple[str, ...]] = {
    "sojourn.testing.chaos": ("ChaosDriver", "Fault"),
    "sojourn.testing.backdoor": ("BackDoor", "HostBackDoor"),
    "sojourn.testing.capabilities": ("Capabilities",),
    "sojourn.testing.contract": ("DriverContract",),
    "sojourn.testing.fake.contract": ("FakeBackDoor", "FakePrograms"),
    "sojourn.testing.kit": ("Kit", "Leak"),
    "sojourn.testing.programs": ("PosixPrograms", "Programs"),
    "sojourn.testing.fake.driver": ("FakeCall", "FakeConfig", "FakeDriver"),
    "sojourn.testing.fake.world": ("FakeCommand", "FakeProgram", "FakeResource", "FakeWorld"),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - every name comes from the table above


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sojourn.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from sojourn.testing.backdoor import BackDoor as BackDoor
    from sojourn.testing.backdoor import HostBackDoor as HostBackDoor
    from sojourn.testing.capabilities import Capabilities as Capabilities
    from sojourn.testing.chaos import ChaosDriver as ChaosDriver
    from sojourn.testing.chaos import Fault as Fault
    from sojourn.testing.contract import DriverContract as DriverContract
    from sojourn.testing.fake.contract import FakeBackDoor as FakeBackDoor
    from sojourn.testing.fake.contract import FakePrograms as FakePrograms
    from sojourn.testing.fake.driver import FakeCall as FakeCall
    from sojourn.testing.fake.driver import FakeConfig as FakeConfig
    from sojourn.testing.fake.driver import FakeDriver as FakeDriver
    from sojourn.testing.fake.world import FakeCommand as FakeCommand
    from sojourn.testing.fake.world import FakeProgram as FakeProgram
    from sojourn.testing.fake.world import FakeResource as FakeResource
    from sojourn.testing.fake.world import FakeWorld as FakeWorld
    from sojourn.testing.kit import Kit as Kit
    from sojourn.testing.kit import Leak as Leak
    from sojourn.testing.programs import PosixPrograms as PosixPrograms
    from sojourn.testing.programs import Programs as Programs
