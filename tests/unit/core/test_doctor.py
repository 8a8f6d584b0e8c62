"""The doctor from inside an orchestrator and without one: what each part finds, and that no part hides another."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn import doctor, doctor_store
from sojourn.errors import SojournError, StoreCorrupt, StoreError, StoreUnavailable, StoreUnwritable, Unavailable
from sojourn.findings import Finding, Health
from sojourn.hooks import hookimpl
from sojourn.models import Diagnostic, ProbeReport, RunContext
from sojourn.orchestrator import Orchestrator
from sojourn.store import Store
from sojourn.testing import FakeDriver, FakeWorld


@attrs.define
class ProbedConfig:
    """Needs nothing."""


class ProbedDriver(FakeDriver):
    """A driver in memory whose probe answers, or raises, what it is told."""

    answer: Any = None

    @hookimpl
    def probe(self, request: Any) -> ProbeReport:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def health(path: Path, **drivers: Any) -> Health:
    async def look() -> Health:
        async with Orchestrator.open(path, drivers=drivers) as orchestrator:
            for name in drivers:
                await orchestrator.environments.create(f"env-{name}", name, {})
            return await orchestrator.doctor()

    return asyncio.run(look())


def without_one(url: str | Path | None) -> Health:
    return asyncio.run(doctor.examine_installation(url))


def about(found: Health, subject: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.subject == subject]


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def test_warnings_break_nothing_and_errors_do():
    def of(*levels: Any) -> Health:
        return Health(findings=tuple(Finding(subject="x", level=level, message="m") for level in levels))

    assert of("ok", "warning").ok
    assert of().ok
    assert not of("ok", "error", "warning").ok


# -- from inside ------------------------------------------------------------------------------------------------------


def test_a_probe_is_shown_with_all_that_it_says(tmp_path: Path):
    driver = ProbedDriver(world=FakeWorld())
    said = (
        Diagnostic(level="info", message="version 3"),
        Diagnostic(level="warning", message="old", hint="renew it"),
        Diagnostic(level="error", message="no disk", hint="add one"),
    )
    driver.answer = ProbeReport(ok=False, summary="not usable", diagnostics=said)
    found = health(tmp_path / "s.db", fake=driver)
    probed = [(one.level, one.message, one.hint) for one in about(found, "environment env-fake")]
    assert probed == [
        ("error", "not usable", None),
        ("ok", "version 3", None),
        ("warning", "old", "renew it"),
        ("error", "no disk", "add one"),
    ]
    assert not found.ok
    assert about(found, "driver local"), "a driver that no environment uses is probed as well"


def test_a_probe_that_fails_is_one_finding_and_the_others_are_there(tmp_path: Path):
    driver = ProbedDriver(world=FakeWorld())
    driver.answer = Unavailable("nobody is at home")
    found = health(tmp_path / "s.db", fake=driver)
    assert [one.level for one in about(found, "environment env-fake")] == ["error", "error"]
    assert any("nobody is at home" in one.message for one in about(found, "environment env-fake"))
    assert about(found, "store")[0].level == "ok"


def test_looking_records_nothing(tmp_path: Path):
    path = tmp_path / "s.db"
    health(path, fake=FakeDriver(world=FakeWorld()))
    before = dump(path)
    assert without_one(path).ok is False, "driver fake is not installed here"
    assert dump(path) == before


def test_many_stuck_leases_are_not_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor_store, "SHOWN", 2)

    async def look() -> Health:
        driver = FakeDriver(world=FakeWorld())
        async with Orchestrator.open(tmp_path / "s.db", drivers={"fake": driver}) as orchestrator:
            environment = await orchestrator.environments.create("e", "fake", {})
            for number in range(4):
                run = RunContext(tenant="default", run_id=f"run-{number}", agent_id=None)
                await orchestrator.acquire_lease(environment, run)
            with closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
                db.execute("UPDATE leases SET expires_at = '2020-01-01T00:00:00.000000Z'")
            return await orchestrator.doctor()

    found = asyncio.run(look())
    over = about(found, "lease")
    assert [one.level for one in over] == ["warning"] * 3
    assert "is past its lifetime (till 2020-01-01T00:00:00+00:00) and still active" in over[0].message
    assert over[2].message == "and 2 more like these"
    assert about(found, "leases")[0].details["expired"] == 4
    assert found.ok


# -- without a store --------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path):
    found = without_one(tmp_path / "deep" / "er" / "s.db")
    assert found.ok
    assert about(found, "store")[0].message.endswith("s.db is not there yet; the first run makes it")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_left_empty(tmp_path: Path):
    (tmp_path / "s.db").touch()
    found = without_one(tmp_path / "s.db")
    assert about(found, "store")[0].message.endswith("is empty; the first run fills it")
    assert (tmp_path / "s.db").stat().st_size == 0


def test_a_place_below_a_file_cannot_become_a_store(tmp_path: Path):
    (tmp_path / "file").touch()
    (store,) = about(without_one(tmp_path / "file" / "s.db"), "store")
    assert store.level == "error"
    assert "cannot be made" in store.message


def test_an_older_schema_is_said_and_not_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asyncio.run(_made(tmp_path / "s.db"))
    before = dump(tmp_path / "s.db")
    monkeypatch.setattr(doctor_store.migrate, "HEAD", "0002")
    (store,) = about(without_one(tmp_path / "s.db"), "store")
    assert (store.level, "has schema 0001; the next command brings it to 0002" in store.message) == ("warning", True)
    assert dump(tmp_path / "s.db") == before


def test_a_store_that_somebody_writes_for_long_is_said_to_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "s.db"
    asyncio.run(_made(path))
    monkeypatch.setattr("sojourn.store.engine.BUSY_TIMEOUT_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        found = without_one(path)
    store = about(found, "store")[0]
    assert store.level == "error"
    assert "is locked by another writer" in store.message
    assert about(found, "leases"), "what can be read is still looked at"


def test_a_damaged_page_is_an_error_and_the_drivers_are_still_probed(tmp_path: Path):
    path = tmp_path / "s.db"
    asyncio.run(_made(path))
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_holders_1'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 100)
    found = without_one(path)
    assert any("is damaged" in one.message for one in about(found, "store") if one.level == "error")
    assert any(one.message == "commands can be run and ended on this machine" for one in about(found, "driver local"))


def test_a_plugin_that_cannot_be_loaded_is_an_error_and_no_driver_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken() -> None:
        raise SojournError("plugin gate cannot be loaded: ImportError: no such module")

    monkeypatch.setattr(doctor, "Plugins", broken)
    found = without_one(tmp_path / "s.db")
    (plugin,) = about(found, "plugins")
    assert (plugin.level, "gate" in plugin.message) == ("error", True)
    assert [one.message for one in about(found, "driver local")] == [about(found, "driver local")[0].message]


def test_without_room_for_a_passing_store_the_rest_is_still_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", _no_room)
    found = without_one(tmp_path / "s.db")
    (drivers,) = about(found, "drivers")
    assert drivers.level == "warning"
    assert "No space left" in drivers.message


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (StoreCorrupt("x"), "backup"),
        (StoreUnavailable("x"), "try again"),
        (StoreUnwritable("x"), "make it writable"),
        (StoreError("x"), "--store"),
    ],
)
def test_each_trouble_with_the_store_has_a_next_step(error: StoreError, hint: str):
    found = doctor_store.trouble(error)
    assert (found.level, hint in (found.hint or "")) == ("error", True)


# -- the machine ------------------------------------------------------------------------------------------------------


def test_without_git_two_modes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (git,) = about(without_one(tmp_path / "s.db"), "git")
    assert (git.level, git.message) == ("warning", "not found in PATH")
    assert "git_worktree" in (git.hint or "")


@pytest.mark.parametrize(
    ("program", "message"),
    [("#!/bin/sh\nexit 3\n", "--version exits with 3"), ("no program\0", "does not run")],
    ids=["fails", "no program"],
)
def test_a_git_that_does_not_run_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
):
    (tmp_path / "git").write_text(program)
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (git,) = about(without_one(tmp_path / "s.db"), "git")
    assert (git.level, message in git.message) == ("warning", True)


def test_a_git_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "GIT_SECONDS", 0.2)
    (git,) = about(without_one(tmp_path / "s.db"), "git")
    assert "does not answer" in git.message


def test_another_system_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "plan9")
    assert doctor._python().level == "warning"


async def _made(path: Path) -> None:
    await (await Store.open(path)).close()


def _no_room(**_: Any) -> Any:
    raise OSError(28, "No space left on device")
