"""Ids are unique, sort by time, and are safe wherever they are written."""

from __future__ import annotations

import re
import time

import pytest

from sojourn import ids


def test_an_id_is_its_prefix_and_22_safe_characters() -> None:
    assert re.fullmatch(r"lease_[0-9a-z]{22}", ids.new_id("lease"))
    assert re.fullmatch(r"sj-[0-9a-z]{22}", ids.new_resource_id())


def test_ids_do_not_repeat() -> None:
    assert len({ids.new_id("x") for _ in range(20_000)}) == 20_000


def test_ids_sort_by_the_millisecond_they_were_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (0, 1, 31, 32, 1_800_000_000_000, 1_800_000_000_001, 2**49):
        monkeypatch.setattr(time, "time_ns", lambda ms=milliseconds: ms * 1_000_000)
        made.append(ids.new_id("x"))
    assert made == sorted(made)
