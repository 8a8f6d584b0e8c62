"""Clauses about loading a driver: what it says of itself, and what its import costs."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys

import attrs

from sojourn.errors import EnvironmentRunError
from sojourn.hooks import DRIVER_HOOKS
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit
from sojourn.testing.leaks import open_descriptors

__all__ = ["LoadClauses"]


class LoadClauses(ContractBase):
    """A driver loads like any other."""

    @clause(Level.L1)
    async def test_it_loads(self, kit: Kit) -> None:
        """The core loads the driver, with every hook marked, required hooks there and parameters in order."""
        try:
            driver = kit.another_driver()
        except EnvironmentRunError as error:
            raise AssertionError(str(error)) from None
        assert driver.loaded.name == driver.info.name

    @clause(Level.L1)
    async def test_driver_info_is_pure(self, kit: Kit) -> None:
        """`driver_info` gives the same answer every time, from every instance, and opens nothing."""
        driver = kit.driver.loaded.implementation
        before = open_descriptors()
        answers = [driver.driver_info() for _ in range(3)]
        assert answers == [kit.driver.info] * 3
        assert self.make_driver().driver_info() == kit.driver.info  # type: ignore[attr-defined]
        assert open_descriptors() == before

    @clause(Level.L1)
    async def test_the_config_class_is_frozen(self, kit: Kit) -> None:
        """The config class is a frozen attrs class."""
        config = await kit.config()
        for field in attrs.fields(type(config)):
            try:
                setattr(config, field.name, getattr(config, field.name))
            except attrs.exceptions.FrozenError:
                continue
            raise AssertionError(f"{type(config).__name__}.{field.name} can be set")

    @clause(Level.L1)
    async def test_hooks_have_no_other_names(self, kit: Kit) -> None:
        """Every public method of the driver that takes a request is one of the contract's hooks."""
        driver = kit.driver.loaded.implementation
        odd = [
            name
            for name, member in inspect.getmembers_static(type(driver), inspect.isfunction)
            if not name.startswith("_")
            and name not in DRIVER_HOOKS
            and "request" in inspect.signature(member).parameters
        ]
        assert not odd, f"{', '.join(odd)} would never be called; hooks are {', '.join(DRIVER_HOOKS)}"

    @clause(Level.L1, "given:heavy_modules")
    async def test_importing_it_imports_no_library(self, kit: Kit) -> None:
        """Importing the driver's module does not import the provider's library."""
        module = type(kit.driver.loaded.implementation).__module__
        program = (
            "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"
        )
        command = [sys.executable, "-c", program, module]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=60)
        found = set(json.loads(done.stdout)) & set(self.heavy_modules)
        assert not found, f"importing {module} imported {', '.join(sorted(found))}"
