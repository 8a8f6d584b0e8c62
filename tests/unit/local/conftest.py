"""Fixtures: a place to run in, and the promise that no process is left after a test."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from local_driving import Place, pids_marked, supervision_pids


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An acquired resource with a workspace; afterwards everything about it must be gone."""
    place = Place(tmp_path / "root", release_grace_seconds=0.3)
    place.acquire()
    place.realize()
    yield place
    place.release()
    place.driver.close()
    assert not place.directory.exists()


@pytest.fixture(autouse=True)
def no_process_left(tmp_path: Path) -> Iterator[None]:
    """Fail the test that leaves a process of its root behind."""
    yield
    until = time.monotonic() + 3
    while left := left_under(tmp_path):
        assert time.monotonic() < until, f"processes left: {left}"
        time.sleep(0.01)


def left_under(tmp_path: Path) -> list[int]:
    return pids_marked(f"SOJOURN_RESOURCE_DIR={tmp_path}/") + supervision_pids(tmp_path)
