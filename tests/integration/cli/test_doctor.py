"""``sojourn doctor``: every part is looked at whatever is wrong with the others, nothing is changed, the status says it."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/cli.md"
KEYS = {"subject", "level", "message", "hint", "details"}


def findings(cli: Any, *words: str, status: int = 0, **env: str) -> list[dict[str, Any]]:
    document = cli.json("doctor", *words, status=status, **env)
    assert set(document) == {"ok", "findings"}
    assert document["ok"] is (status == 0)
    assert all(set(finding) == KEYS for finding in document["findings"])
    return document["findings"]


def about(found: list[dict[str, Any]], subject: str, level: str) -> dict[str, Any]:
    return next(one for one in found if (one["subject"], one["level"]) == (subject, level))


def test_a_fresh_home_is_well_and_stays_empty(cli: Any):
    done = cli("doctor")
    assert (done.returncode, done.stderr.decode()) == (0, "sojourn: all is well\n")
    subjects = [re.split(r"  +", line)[1] for line in done.stdout.decode().splitlines()]
    assert subjects[:3] == ["python", "sojourn", "git"]
    assert {"driver local", "store"} <= set(subjects)
    assert "sojourn.db is not there yet; the first run makes it" in done.stdout.decode()
    assert not cli.state.exists()
    assert b"\x1b" not in done.stdout


def test_a_look_at_a_store_changes_no_row(cli: Any):
    cli("run", "--", "true")
    with closing(sqlite3.connect(cli.state / "sojourn.db")) as db:
        before = list(db.iterdump())
    found = findings(cli)
    store = about(found, "store", "ok")
    assert store["details"]["schema"] == "0001"
    assert store["details"]["bytes"] > 0
    assert about(found, "environment local", "ok")["message"] == "commands can be run and ended on this machine"
    with closing(sqlite3.connect(cli.state / "sojourn.db")) as db:
        assert list(db.iterdump()) == before


def test_the_reference_has_the_keys_of_a_finding():
    section = PAGE.read_text(encoding="utf-8").split("\n### Finding\n")[1].split("\n#")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == KEYS


@pytest.mark.parametrize(
    ("content", "part", "hint"),
    [
        (b"this is no database at all, whatever its name says", "is not a database", "backup"),
        (None, "written by a newer sojourn", "the sojourn that it was written by"),
    ],
    ids=["not a database", "newer schema"],
)
def test_a_store_that_cannot_be_opened_hides_nothing_else(cli: Any, content: bytes | None, part: str, hint: str):
    cli("run", "--", "true")
    if content is None:
        cli.sql("UPDATE alembic_version SET version_num = '9999'")
    else:
        (cli.state / "sojourn.db").write_bytes(content)
    found = findings(cli, status=1)
    store = about(found, "store", "error")
    assert part in store["message"]
    assert hint in store["hint"]
    assert [one["subject"] for one in found if one["level"] == "error"] == ["store"]
    probed = [one["message"] for one in found if one["subject"] == "driver local"]
    assert "commands can be run and ended on this machine" in probed
    if content is not None:
        assert (cli.state / "sojourn.db").read_bytes() == content


@pytest.mark.parametrize("url", ["mysql://me:hunter2@db/x", "postgresql://me:hunter2@127.0.0.1:1/x"])
def test_a_store_elsewhere_is_named_without_its_password(cli: Any, url: str):
    done = cli.look("doctor", "--store", url)
    assert done.returncode == 1
    assert re.search(r"^error +store ", done.stdout.decode(), flags=re.MULTILINE)
    assert b"hunter2" not in done.stdout + done.stderr
    assert b"sojourn: 1 error\n" in done.stderr


def test_a_broken_driver_and_what_is_stuck_are_findings_with_a_next_step(cli: Any, flaky: Path):
    flaky.touch()
    assert cli("run", "--env", "flaky", "--", "true").returncode == 0
    lease = cli.only_lease()["id"]
    found = findings(cli, status=1)
    broken = about(found, "driver broken", "error")
    assert "no_such_module" in broken["message"]
    assert "reinstall or uninstall someone-elses" in broken["hint"]
    stuck = about(found, "lease", "warning")
    assert stuck["details"]["lease_id"] == lease
    assert f"{lease} in environment flaky is not proven gone" in stuck["message"]
    assert "sojourn reap" in stuck["hint"]
    shown = cli("doctor").stdout.decode()
    assert "\x1b" not in shown
    assert "\\x1b]0;pwned\\x07" in shown
    assert re.search(r"^ +→ run `sojourn reap", shown, flags=re.MULTILINE)


def test_what_a_killed_process_left_is_a_warning_only(cli: Any):
    process = cli.start("run", "--", "sh", "-c", "echo started; sleep 300")
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=30)
    left = about(findings(cli), "lease", "warning")
    assert f"was left active by a process that is gone (pid {process.pid})" in left["message"]
    assert left["hint"] == "run `sojourn reap`"
    assert cli.only_lease()["status"] == "active"
    assert cli("reap").returncode == 0


def test_a_copied_store_is_a_warning(cli: Any):
    cli("run", "--", "true")
    copy = cli.work / "copy.db"
    with closing(sqlite3.connect(cli.state / "sojourn.db")) as db:
        db.execute("VACUUM INTO ?", (str(copy),))
    found = findings(cli, "--store", str(copy))
    assert "sojourn db adopt --new-installation" in about(found, "store", "warning")["hint"]


def test_an_environment_whose_config_no_longer_fits_is_an_error(cli: Any):
    cli.ok("env", "add", "build", "--driver", "local")
    cli.sql("UPDATE environments SET config = '{\"no_such_key\": \"hunter2\"}' WHERE name = 'build'")
    done = cli("--json", "doctor")
    assert done.returncode == 1
    assert b"no_such_key" in done.stdout
    assert b"hunter2" not in done.stdout
