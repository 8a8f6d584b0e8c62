"""Whatever a clause leaves behind makes it fail, and is named."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sojourn.testing import Capabilities, DriverContract, FakeBackDoor, FakeDriver, FakePrograms, FakeWorld, Kit, Leak


class Contract(DriverContract):
    capabilities = Capabilities(parallel=True, survives_restart=True)
    programs = FakePrograms()

    def __init__(self) -> None:
        self.world = FakeWorld()

    def make_driver(self) -> FakeDriver:
        return FakeDriver(world=self.world)

    def make_config(self, tmp_path: Path) -> dict[str, Any]:
        return {}

    def back_door(self, tmp_path: Path) -> FakeBackDoor:
        return FakeBackDoor(self.world)


@pytest.fixture
def kit() -> Iterator[Kit]:
    kit = Kit(Contract(), pytest.skip)
    yield kit
    kit.remove()


def leak_of(kit: Kit, body: Callable[[], Any]) -> str:
    with pytest.raises(Leak) as caught:
        kit.run((), body)
    return str(caught.value)


def test_a_clean_clause_passes(kit: Kit):
    async def body() -> None:
        async with kit.place() as place:
            (await place.run(kit.programs.exit(0))).check()

    kit.run((), body)
    assert not kit.folder.exists()


def test_a_resource_that_was_not_released(kit: Kit):
    async def body() -> None:
        await kit.unacquired(resource_id="left-behind").acquire()

    assert "resource left-behind was not released" in leak_of(kit, body)
    assert kit.contract.world.resources == {}, "the kit releases what a clause left"


def test_a_resource_that_the_driver_lists_though_it_said_gone(kit: Kit):
    async def body() -> None:
        async with kit.place() as place:
            kept = kit.contract.world.resources[place.resource_id]
        kit.contract.world.resources[place.resource_id] = kept

    said = leak_of(kit, body)
    assert "is in the inventory" in said
    assert "exists" in said


def test_a_task(kit: Kit):
    async def body() -> None:
        kit.contract.task = asyncio.create_task(asyncio.sleep(60), name="left-running")

    assert "task left-running" in leak_of(kit, body)


def test_a_temporary_file(kit: Kit):
    async def body() -> None:
        os.close(tempfile.mkstemp(prefix="left-")[0])

    assert "temporary file left-" in leak_of(kit, body)


def test_descriptors(kit: Kit):
    opened: list[int] = []

    async def body() -> None:
        opened.extend(os.dup(0) for _ in range(3))

    try:
        assert "+3 open descriptors" in leak_of(kit, body)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_a_process(kit: Kit, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeBackDoor, "processes", lambda *_: ["pid 1: left behind"])

    async def body() -> None:
        async with kit.place():
            pass

    assert "pid 1: left behind" in leak_of(kit, body)


def test_what_a_failed_clause_left_is_noted_on_its_failure(kit: Kit):
    async def body() -> None:
        await kit.unacquired(resource_id="left-behind").acquire()
        raise ValueError("the clause itself")

    with pytest.raises(ValueError, match="the clause itself") as caught:
        kit.run((), body)
    assert any("left-behind" in note for note in caught.value.__notes__)


def test_an_undeclared_capability_skips(kit: Kit):
    async def body() -> None:
        raise AssertionError("must not run")

    for need, reason in (
        ("other_user", "undeclared capability: other_user"),
        ("hook:upload", "undeclared capability: hook:upload"),
        ("given:heavy_modules", "undeclared capability: given:heavy_modules"),
    ):
        fresh = Kit(Contract(), pytest.skip)
        with pytest.raises(pytest.skip.Exception, match=reason):
            fresh.run((need,), body)


def test_requests_carry_nothing_of_ours(kit: Kit):
    """A config is another object in every call, and so is everything in a request."""
    seen: list[Any] = []

    async def body() -> None:
        async with kit.place(realized=False) as place:
            request = [await place.sent(await target_request(place)) for _ in range(2)]
            seen.extend(request)

    async def target_request(place: Any) -> Any:
        from sojourn.models import TargetRequest

        return TargetRequest(**await place.fields(), cwd=None)

    kit.run((), body)
    assert seen[0] == seen[1]
    assert seen[0].config is not seen[1].config
    assert seen[0].context is not seen[1].context
    assert seen[0].handle is not seen[1].handle
