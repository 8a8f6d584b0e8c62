"""Fixtures: the scene of a crash, cleared of every process whatever the test did."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_driving import Scene, Victims


@pytest.fixture(scope="session")
def victims() -> Iterator[Victims]:
    """What starts the processes that are to be killed."""
    victims = Victims()
    yield victims
    victims.close()


@pytest.fixture
def make_scene(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, victims: Victims
) -> Iterator[Callable[[], Scene]]:
    """Make scenes, one after the other; this process sweeps in the latest."""
    scenes: list[Scene] = []

    def make() -> Scene:
        folder = tmp_path_factory.mktemp("scene")
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        scenes.append(Scene(folder, victims))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(make_scene: Callable[[], Scene]) -> Scene:
    """One scene."""
    return make_scene()
