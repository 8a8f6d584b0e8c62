"""A lab for orchestrators: a store in a file, a driver in memory with its world, and eyes that look past both."""

from __future__ import annotations

import asyncio
import inspect
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn.models import RunContext
from sojourn.orchestrator import Orchestrator
from sojourn.records import Environment
from sojourn.session import Session
from sojourn.settings import Settings
from sojourn.testing import ChaosDriver, FakeDriver, FakeWorld, Fault

# No wait of a test is longer than it has to be; what a test is about it sets itself.
FAST = Settings(
    acquire_timeout_seconds=20.0,
    abandon_after_seconds=0.2,
    late_effect_seconds=0.0,
    retry_seconds=0.001,
    grace_seconds=0.2,
)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@attrs.define
class Lab:
    """One database, one fake provider, any number of orchestrators."""

    path: Path
    folder: Path
    world: FakeWorld = attrs.field(factory=FakeWorld)
    driver: FakeDriver = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.driver = FakeDriver(world=self.world)

    # -- making things ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, driver: Any = None, **options: Any) -> AsyncIterator[Orchestrator]:
        options.setdefault("drivers", {"fake": self.driver if driver is None else driver})
        options.setdefault("settings", FAST)
        async with Orchestrator.open(options.pop("store", self.path), **options) as orchestrator:
            yield orchestrator

    @asynccontextmanager
    async def ready(self, driver: Any = None, **options: Any) -> AsyncIterator[tuple[Orchestrator, Environment]]:
        """An orchestrator and the environment ``build`` on driver ``fake``."""
        async with self.open(driver, **options) as orchestrator:
            known = {environment.name: environment for environment in await orchestrator.environments.list()}
            yield orchestrator, known.get("build") or await orchestrator.environments.create("build", "fake")

    @asynccontextmanager
    async def session(self, driver: Any = None, **options: Any) -> AsyncIterator[tuple[Orchestrator, Session]]:
        """An orchestrator and a session in the environment ``build``; ``run`` is given, ``orchestrating`` are `open`'s."""
        orchestrating = options.pop("orchestrating", {})
        options = {"environment": "build", "run": self.run(), **options}
        async with (
            self.ready(driver, **orchestrating) as (orchestrator, _),
            orchestrator.session(**options) as session,
        ):
            yield orchestrator, session

    def fake(self, **programs: Any) -> FakeDriver:
        """A driver of the same world that knows further programs."""
        return FakeDriver(programs, world=self.world)

    def chaos(self, *faults: Fault, inner: Any = None) -> ChaosDriver:
        return ChaosDriver(inner or self.driver, faults)

    def settings(self, **changes: Any) -> Settings:
        return attrs.evolve(FAST, **changes)

    def run(self, run_id: str | None = "run-1", **changes: Any) -> RunContext:
        return RunContext(**{"tenant": "default", "run_id": run_id, "agent_id": "agent-1", **changes})

    # -- looking ------------------------------------------------------------------------------------------------------

    def sql(self, query: str, *values: Any, path: Path | None = None) -> list[dict[str, Any]]:
        """Ask the database itself."""
        with closing(sqlite3.connect(path or self.path)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute(query, values)]
            connection.commit()
        return rows

    def leases(self) -> list[dict[str, Any]]:
        rows = self.sql("SELECT * FROM leases ORDER BY created_at, id")
        return [{**row, "metadata": json.loads(row["metadata"]), "config": json.loads(row["config"])} for row in rows]

    def lease(self) -> dict[str, Any]:
        """The only lease there is."""
        (row,) = self.leases()
        return row

    def activities(self, action: str | None = None) -> list[dict[str, Any]]:
        rows = self.sql("SELECT * FROM activity ORDER BY id")
        found = [{**row, "details": json.loads(row["details"])} for row in rows]
        return [row for row in found if action in (None, row["action"])]

    def all_text(self) -> str:
        """Everything in the database, as one text."""
        with closing(sqlite3.connect(self.path)) as connection:
            return "\n".join(connection.iterdump())

    def resources(self) -> list[str]:
        return sorted(self.world.resources)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(path=tmp_path / "sojourn.db", folder=tmp_path)


@pytest.fixture
def until() -> Any:
    async def until(condition: Any, seconds: float = 10.0) -> None:
        """Wait until ``condition()`` holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    return until
