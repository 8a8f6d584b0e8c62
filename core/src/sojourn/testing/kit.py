"""What a clause works with: the driver behind the core's own border, resources that are given back, and a look for leaks."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sojourn.drivers import Driver, DriverRegistry
from sojourn.models import (
    InventoryItem,
    InventoryRequest,
    ProbeReport,
    ProbeRequest,
    ResourceState,
    Transfer,
)
from sojourn.plugins import Plugins
from sojourn.resolvers import SecretResolver
from sojourn.settings import Settings
from sojourn.testing import leaks
from sojourn.testing.backdoor import BackDoor
from sojourn.testing.capabilities import Capabilities
from sojourn.testing.memory import MemoryWatch
from sojourn.testing.places import ACTOR, CONTEXT, Place
from sojourn.testing.programs import Programs

__all__ = ["Kit", "Leak", "Undeclared"]

T = TypeVar("T")

CLAUSE_SECONDS = 90.0
"""A clause that takes longer hangs."""
MIN_MARK_CHARS = 12


class Leak(AssertionError):
    """A clause left something behind."""


class Undeclared(Exception):
    """The clause needs something that the driver's author did not declare; it is skipped."""


class Kit:
    """The surroundings of one clause.

    Args:
        contract: the object of the contract class.
        skip: called with a reason when the clause cannot be tested; does not return.
    """

    def __init__(self, contract: Any, skip: Callable[[str], Any]) -> None:
        self.contract = contract
        self._skip = skip
        # Short, so that sockets of drivers fit into their 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-kit-"))
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self.workspace = self.folder / "workspace"
        self.installation_id = f"contract-{secrets.token_hex(4)}"
        self._instances: list[Driver] = []
        self._held: list[Place] = []
        self._used: set[str] = set()
        self._secrets = SecretResolver(Plugins())

    def remove(self) -> None:
        """Remove the folder of the clause."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prepare(self) -> None:
        self.config_data = self.plain(self.contract.make_config(self.folder / "config"))
        self.contract.make_workspace(self.workspace)
        self.capabilities: Capabilities = self.contract.capabilities
        self.programs: Programs = self.contract.programs
        self.driver = self.another_driver()
        self.door: BackDoor = self.contract.back_door(self.folder / "config") or BackDoor()
        transfers = self.driver.info.transfers
        self.transfer: Transfer = "copy" if "copy" in transfers else transfers[0]

    @staticmethod
    def plain(data: Any) -> Any:
        """Return ``data`` as it is read from a file."""
        return json.loads(json.dumps(data))

    # -- the driver ---------------------------------------------------------------------------------------------------

    def another_driver(self) -> Driver:
        """Return a new instance of the driver behind a registry of its own, as another process would have it."""
        return self.behind_border(self.contract.make_driver())

    def behind_border(self, instance: Any) -> Driver:
        """Return a driver object behind a registry of its own."""
        name = str(instance.driver_info().name)
        driver = DriverRegistry({name: instance}, Settings(abandon_after_seconds=2.0)).get(name)
        self._instances.append(driver)
        return driver

    async def config(self, driver: Driver | None = None, data: Any = None) -> Any:
        """Return the driver's config object as hooks get it: newly made from its JSON, secrets resolved."""
        plain = self.plain(self.config_data if data is None else data)
        return await self._secrets.resolved((driver or self.driver).load_config(plain, "config"), "config")

    def new_id(self, length: int = 18) -> str:
        """Return a resource id that is not taken, of a certain length."""
        return ("c" + secrets.token_hex(32))[:length]

    @asynccontextmanager
    async def place(self, *, realized: bool = True, **options: Any) -> AsyncIterator[Place]:
        """Acquire and realize a resource, and destroy it at the end of the block."""
        place = self.unacquired(**options)
        await place.acquire()
        if realized:
            await place.realize()
        yield place
        if place in self._held:
            receipt = await place.release()
            assert receipt.state is ResourceState.GONE, f"release(destroy) says that the resource is {receipt.state}"

    def unacquired(self, **options: Any) -> Place:
        """Return a resource of which only the name exists."""
        settings = {"installation_id": self.installation_id, "resource_id": self.new_id(), "driver": self.driver}
        return Place(kit=self, **{**settings, **options})

    def note(self, place: Place) -> None:
        """Remember that ``place`` may exist now."""
        self._used.add(place.resource_id)
        if place not in self._held:
            self._held.append(place)

    def forget(self, place: Place) -> None:
        """Remember that it is proven gone, under whichever object it was acquired."""
        self._held = [held for held in self._held if held.resource_id != place.resource_id]

    async def probe(self, data: Any = None) -> ProbeReport:
        """Probe a config, the author's by default."""
        config = await self.config(data=data)
        request = ProbeRequest(**{**self._installation_fields(self.installation_id), "config": config})
        return await self.driver.probe(request)

    async def inventory(self, installation_id: str | None = None, driver: Driver | None = None) -> list[InventoryItem]:
        """List an installation's resources, ours by default."""
        fields = self._installation_fields(installation_id or self.installation_id)
        request = InventoryRequest(**{**fields, "config": await self.config(driver)})
        return await (driver or self.driver).inventory(request)

    def _installation_fields(self, installation_id: str) -> dict[str, Any]:
        return {
            "installation_id": installation_id,
            "environment_id": None,
            "context": CONTEXT,
            "actor": ACTOR,
            "timeout_seconds": 60.0,
        }

    # -- measuring ----------------------------------------------------------------------------------------------------

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Fail unless the block is left within ``seconds``, times the patience that the author asks for."""
        began = time.monotonic()
        yield
        took, allowed = time.monotonic() - began, seconds * self.contract.patience
        assert took <= allowed, f"took {took:.1f} s; allowed are {allowed:.1f} s"

    async def soon(self, seconds: float, work: Awaitable[T]) -> T:
        """Wait for ``work`` for as long as `within` would allow."""
        async with asyncio.timeout(seconds * self.contract.patience):
            return await work

    def memory(self) -> MemoryWatch:
        """Return a context manager that watches how much this process grows."""
        return MemoryWatch()

    def declared(self, need: str) -> bool:
        """Whether something that a clause needs is declared; see `Clause.needs`."""
        kind, _, name = need.rpartition(":")
        if kind == "hook":
            return self.driver.has(name)
        if kind == "door":
            return self.door.offers(name)
        if kind == "info":
            return bool(getattr(self.driver.info, name))
        if kind == "given":
            return getattr(self.contract, name) not in (None, (), "")
        return bool(getattr(self.capabilities, name))

    def need(self, name: str) -> None:
        """Skip the rest of the clause unless ``name`` is declared."""
        if not self.declared(name):
            self.undeclared(name)

    def undeclared(self, what: str) -> NoReturn:
        """Skip the rest of the clause."""
        raise Undeclared(what)

    # -- running a clause ---------------------------------------------------------------------------------------------

    def run(self, needs: tuple[str, ...], body: Callable[[], Awaitable[None]]) -> None:
        """Run a clause, then look for what it left behind.

        Raises:
            Leak: it left something; what a failed clause left is noted on its own failure.
        """
        before = leaks.open_descriptors()
        try:
            with leaks.own_temporary_directory(self.temporary):
                problems, error = self._run(needs, body)
            problems += self._left_outside(before)
        finally:
            self.remove()
        if isinstance(error, Undeclared):
            self._skip(f"undeclared capability: {error}")
        if error is not None:
            for problem in problems:
                error.add_note(f"and it left: {problem}")
            raise error
        if problems:
            raise Leak("the clause held, but it left: " + "; ".join(problems))

    def _run(
        self, needs: tuple[str, ...], body: Callable[[], Awaitable[None]]
    ) -> tuple[list[str], BaseException | None]:
        self._prepare()
        missing = [need for need in needs if not self.declared(need)]
        if missing:
            return [], Undeclared(missing[0])
        return asyncio.run(self._main(body))

    async def _main(self, body: Callable[[], Awaitable[None]]) -> tuple[list[str], BaseException | None]:
        error: BaseException | None = None
        try:
            async with asyncio.timeout(CLAUSE_SECONDS * self.contract.patience):
                await body()
        except BaseException as caught:  # noqa: BLE001 - it is raised again when everything is cleaned up
            error = caught
        problems = await self._give_back()
        for driver in self._instances:
            await driver.close()
        problems += [f"task {task}" for task in await leaks.tasks_left()]
        return problems, error

    async def _give_back(self) -> list[str]:
        """Release what the clause did not; it should have."""
        problems = []
        for place in list(self._held):
            problems.append(f"resource {place.resource_id} was not released")
            try:
                await place.release(epoch=1_000_000, handle=None)
            except Exception as error:  # noqa: BLE001 - reported, and the others are released too
                problems.append(f"resource {place.resource_id} cannot be released: {error}")
        if self.driver.has("inventory"):
            try:
                left = await self.inventory()
            except Exception as error:  # noqa: BLE001 - reported
                return [*problems, f"the inventory cannot be listed: {error}"]
            problems += [f"resource {item.resource_id} is in the inventory" for item in left]
        return problems

    def _left_outside(self, descriptors_before: int | None) -> list[str]:
        problems = []
        if self.door.offers("processes"):
            # A mark of a character or two is in everything.
            for resource_id in sorted(name for name in self._used if len(name) >= MIN_MARK_CHARS):
                marked = leaks.until(lambda mark=resource_id: self.door.processes(mark))  # type: ignore[misc]
                problems += [f"process of {resource_id}: {line}" for line in marked]
        if self.door.offers("resource_exists"):
            problems += [f"resource {name} exists" for name in sorted(self._used) if self.door.resource_exists(name)]
        problems += [f"temporary file {path.name}" for path in sorted(self.temporary.iterdir())]
        after = leaks.open_descriptors()
        if descriptors_before is not None and after is not None:
            grown = after - descriptors_before
            if abs(grown) > leaks.DESCRIPTORS_ALLOWED:
                problems.append(f"{grown:+d} open descriptors")
        return problems
