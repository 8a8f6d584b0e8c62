"""The contract of an installed driver, without a test file: ``pytest --sojourn-driver NAME --sojourn-config FILE``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn.discovery import find_candidates
from sojourn.testing.capabilities import Capabilities
from sojourn.testing.contract import DriverContract

__all__ = ["TestInstalledDriver"]


class TestInstalledDriver(DriverContract):
    """The driver that the command line names."""

    options: Any = None

    @pytest.fixture(autouse=True)
    def _options(self, request: pytest.FixtureRequest) -> None:
        self.options = request.config.option
        if self.options.sojourn_driver is None:
            pytest.skip("no --sojourn-driver NAME was given")
        # Of this test's object: the class is one for all drivers.
        self.capabilities = declared(self.options.sojourn_capability)  # type: ignore[misc]

    def make_driver(self) -> object:
        """Return a new object of the installed driver."""
        name = self.options.sojourn_driver
        candidates = find_candidates()
        assert name in candidates, f"no driver {name!r} is installed; installed are {', '.join(sorted(candidates))}"
        return candidates[name].entry_point.load()()

    def make_config(self, tmp_path: Path) -> Mapping[str, Any]:
        """Return what is in the file."""
        return read(self.options.sojourn_config)


def read(name: str | None) -> dict[str, Any]:
    """Return the object in a JSON or TOML file; an empty one without a file."""
    if name is None:
        return {}
    path = Path(name)
    text = path.read_text(encoding="utf-8")
    data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    assert isinstance(data, dict), f"{name} holds {type(data).__name__}, not an object"
    return data


def declared(words: list[str]) -> Capabilities:
    """Return the capabilities that ``words`` declare, each ``NAME`` or ``NAME=VALUE``."""
    known = [field.name for field in attrs.fields(Capabilities)]
    values: dict[str, Any] = {}
    for word in words:
        name, given, value = word.partition("=")
        assert name in known, f"no capability {name!r}; known are {', '.join(known)}"
        values[name] = value if given else True
    return Capabilities(**values)
