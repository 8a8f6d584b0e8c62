"""What goes wrong: one clear line, the right exit status, and nothing touched."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest


def one_line(done: Any, *parts: str) -> None:
    text = done.stderr.decode()
    assert text.startswith("sojourn: ")
    assert text.count("\n") == 1, text
    for part in parts:
        assert part in text


def test_an_unknown_environment_names_those_that_there_are(cli: Any):
    cli("run", "--", "true")
    done = cli("run", "--env", "nope", "--", "true")
    assert done.returncode == 125
    one_line(done, "no environment 'nope'", "There are: local")
    assert len(cli.leases()) == 1


def test_an_archived_environment_is_refused(cli: Any):
    cli.ok("env", "add", "old", "--driver", "local")
    cli.ok("env", "archive", "old")
    done = cli("run", "--env", "old", "--", "true")
    assert done.returncode == 125
    one_line(done, "'old'", "archived")
    assert cli.json("explain", "--env", "old", status=1)["error"]["code"] == "environment_inactive"


def test_a_missing_and_a_broken_driver_are_named_before_anything_is_leased(cli: Any, flaky: Path):
    cli.sql("UPDATE environments SET driver = 'nowhere'")
    done = cli("run", "--env", "flaky", "--", "true")
    assert done.returncode == 125
    one_line(done, "no driver named 'nowhere'", "pip install sojourn-nowhere")
    cli.sql("UPDATE environments SET driver = 'broken'")
    one_line(cli("run", "--env", "flaky", "--", "true"), "driver 'broken' of someone-elses is broken", "no_such_module")
    assert cli.leases() == []
    drivers = {row["name"]: row for row in cli.json("drivers")}
    assert (drivers["broken"]["status"], drivers["local"]["status"]) == ("broken", "ok")
    assert "no_such_module" in drivers["broken"]["reason"]
    assert "no_such_module" in cli.ok("drivers", "list")


def test_a_workspace_that_cannot_be_used_is_named(cli: Any):
    (cli.work / "file").write_text("")
    for path, reason in (("missing", "does not exist"), ("file", "is not a folder")):
        done = cli("run", "--workspace", path, "--", "true")
        assert done.returncode == 125
        one_line(done, str(cli.work / path), reason)
        assert cli.json("explain", "--workspace", path, status=1)["problems"]
    assert {lease["cleanup_status"] for lease in cli.leases()} == {"success"}


AS_NOBODY = """
import contextlib, io, os, sys
from sojourn.cli import main
# What is not imported now could not be read any more where this Python belongs to root alone.
with contextlib.redirect_stdout(io.StringIO()):
    main(["explain", "--json", "--workspace", "missing", "--store", "warm.db"])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_workspace_that_cannot_be_read_is_named(cli: Any):
    closed = cli.work / "closed"
    closed.mkdir(mode=0o700)
    os.chown(cli.work, 65534, 65534)
    for parent in (cli.work, *cli.work.parents):
        if parent.stat().st_mode & 0o005 != 0o005 and parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    cli.words = (sys.executable, "-c", AS_NOBODY)
    found = cli.json("explain", "--store", str(cli.work / "db"), "--workspace", str(closed), status=1)
    assert len(found["problems"]) == 1
    assert str(closed) in found["problems"][0]


@pytest.mark.parametrize("words", [("run", "--", "true"), ("lease", "list"), ("reap",), ("db", "check"), ("explain",)])
def test_a_store_that_is_not_one_is_refused_and_left_alone(cli: Any, words: tuple[str, ...]):
    garbage = cli.work / "garbage"
    garbage.write_bytes(b"this is no database" * 1000)
    folder = cli.work / "folder"
    folder.mkdir()
    status = 125 if words[0] == "run" else 1
    for store, part in ((garbage, "not a database"), (folder, "is a directory")):
        done = cli.look("--store", str(store), *words)
        assert done.returncode == status
        one_line(done, str(store), part)
    assert garbage.read_bytes() == b"this is no database" * 1000
    assert list(folder.iterdir()) == []


def test_a_store_that_cannot_be_written_is_refused(cli: Any):
    done = cli("--store", "/proc/sojourn.db", "run", "--", "true")
    assert done.returncode == 125
    one_line(done, "/proc/sojourn.db")


def test_a_password_in_the_stores_url_is_not_shown(cli: Any):
    done = cli.look("--store", "mysql://me:hunter2@db/x", "lease", "list")
    assert done.returncode == 1
    one_line(done)
    assert b"hunter2" not in done.stderr + done.stdout


def test_a_moved_store_is_not_swept_until_it_is_adopted(cli: Any):
    cli("run", "--", "true")
    copy = cli.work / "copy.db"
    shutil.copy(cli.state / "sojourn.db", copy)
    done = cli("--store", str(copy), "reap")
    assert done.returncode == 1
    one_line(done, "sojourn db adopt")
    before = cli.json("db", "check", "--store", str(copy))
    assert before["in_place"] is False
    after = cli.json("db", "adopt", "--new-installation", "--store", str(copy))
    assert after["installation_id"] != before["installation_id"]
    assert cli("--store", str(copy), "reap").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--mode", "sideways", "--", "true"),
        ("run", "--timeout", "-1", "--", "true"),
        ("run", "--timeout", "soon", "--", "true"),
        ("run", "-e", "hunter2", "--", "true"),
        ("run", "--secret", "TOKEN=hunter2", "--", "true"),
        ("run", "--branch", "b", "--", "true"),
        ("no-such-command",),
        ("lease", "extend", "x"),
        ("--no-such-option",),
    ],
)
def test_wrong_usage_is_2_and_repeats_no_secret(cli: Any, words: tuple[str, ...]):
    done = cli(*words)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"hunter2" not in done.stderr
    shown = cli.look("--json", *words)
    assert json.loads(shown.stdout)["error"]["code"] == "usage"
    assert not cli.state.exists()


def test_a_lease_that_is_not_there_is_told(cli: Any):
    for words in (("show", "nope"), ("release", "nope"), ("extend", "nope", "--by", "1h")):
        done = cli.look("--json", "lease", *words)
        assert done.returncode == 1
        assert json.loads(done.stdout)["error"]["code"] == "lease_not_found"
        one_line(done, "'nope'")


def test_a_bug_is_one_line_and_its_place_is_told_when_asked(cli: Any, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sojourn.cli.context as c\n"
        "def boom(self, *plugins): raise RuntimeError('unexpected \\x1b[2J')\n"
        "c.State.orchestrator = boom\n"
    )
    path = ":".join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = cli("run", "--", "true", PYTHONPATH=path)
    assert done.returncode == 125
    one_line(done, "RuntimeError: unexpected \\x1b[2J", "this is a bug", "SOJOURN_DEBUG=1")
    assert b"Traceback" in cli("run", "--", "true", PYTHONPATH=path, SOJOURN_DEBUG="1").stderr
