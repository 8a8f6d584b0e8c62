"""``sojourn activity --follow`` and ``sojourn db``: what happens as it happens, and whether the record is sound."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


def test_followed_documents_are_one_per_line_and_ctrl_c_ends_it(cli: Any):
    process = cli.start("activity", "--follow", "--json")
    cli("run", "--", "true")
    events = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [event["action"] for event in events] == ["environment.lease_acquired", "environment.lease_released"]
    assert events[0]["id"] < events[1]["id"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_went_away_is_noticed_though_nothing_happens(cli: Any):
    process = cli.start("activity", "--follow")
    time.sleep(0.5)
    process.stdout.close()
    assert process.wait(timeout=10) == 141
    assert process.stderr.read() == b""


def test_following_into_a_file_goes_on(cli: Any):
    with (cli.work / "log").open("wb") as log:
        process = cli.start("activity", "--follow", "--entity", "nobody", stdout=log)
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert (cli.work / "log").read_bytes() == b""


# -- db ---------------------------------------------------------------------------------------------------------------


def copied(cli: Any) -> Path:
    target = cli.work / "copy.db"
    with closing(sqlite3.connect(cli.state / "sojourn.db")) as db:
        db.execute("VACUUM INTO ?", (str(target),))
    return target


def overwrite(path: Path, table_or_index: str) -> None:
    """Write rubbish over the beginning of a table's page, or the end of an index's, where its cells are."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table_or_index,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size if table_or_index == "activity" else page * size - 40)
        file.write(b"\xff" * 40)


def test_a_sound_database_is_said_to_be(cli: Any):
    cli("run", "--", "true")
    document = cli.json("db", "check")
    assert (document["problems"], document["schema"], document["leases"]) == ([], "0001", {"released": 1})
    assert "problems         none\n" in cli.ok("db", "check")


@pytest.mark.parametrize("damaged", ["ix_leases_status_next_try_at", "activity"])
def test_damage_is_found_named_and_exit_status_1(cli: Any, damaged: str):
    cli("run", "--", "true")
    path = copied(cli)
    overwrite(path, damaged)
    before = path.read_bytes()
    done = cli.look("db", "check", "--store", str(path))
    assert done.returncode == 1
    assert b"sojourn: damaged: " in done.stderr
    assert b"sojourn: restore a backup; sojourn does not repair a database" in done.stderr
    assert b"Traceback" not in done.stderr
    assert cli.json("db", "check", "--store", str(path), status=1)["problems"]
    assert path.read_bytes()[100:] == before[100:]


def test_a_reference_that_leads_nowhere_is_damage(cli: Any):
    cli("run", "--", "true")
    cli.sql("DELETE FROM tenants")
    (problem,) = cli.json("db", "check", status=1)["problems"]
    assert problem == "row 1 of environments names a row of tenants that is not there"


def test_a_database_that_is_up_to_date_is_upgraded_without_a_change(cli: Any):
    cli("run", "--", "true")
    with closing(sqlite3.connect(cli.state / "sojourn.db")) as db:
        before = list(db.iterdump())
    assert cli.json("db", "upgrade") == {"store": f"sqlite:///{cli.state}/sojourn.db", "upgraded": True}
    with closing(sqlite3.connect(cli.state / "sojourn.db")) as db:
        assert list(db.iterdump()) == before


def test_a_copy_is_swept_again_once_it_is_adopted(cli: Any):
    cli("run", "--", "true")
    store = str(copied(cli))
    assert cli("reap", "--store", store).returncode == 1
    first = cli.json("db", "check", "--store", store)["installation_id"]
    adopted = cli.json("db", "adopt", "--new-installation", "--store", store)
    assert adopted["in_place"]
    assert adopted["installation_id"] != first
    assert cli("reap", "--store", store).returncode == 0


def test_a_newer_schema_is_left_alone(cli: Any):
    cli("run", "--", "true")
    cli.sql("UPDATE alembic_version SET version_num = '9999'")
    for words in (("db", "check"), ("db", "upgrade"), ("db", "adopt")):
        done: subprocess.CompletedProcess[bytes] = cli.look(*words)
        assert done.returncode == 1
        assert b"was written by a newer sojourn (schema 9999" in done.stderr
    assert os.listdir(cli.work) == []
