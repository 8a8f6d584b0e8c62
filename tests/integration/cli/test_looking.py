"""Looking and acting by hand: explain, env, lease, activity, drivers, db, help; and the documents that they print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/cli.md"

TYPES: dict[str, Any] = {
    "text": str,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "list": list,
    "nothing": type(None),
}


def documented(name: str) -> dict[str, list[str]]:
    """Read the table below the heading of a document in the reference: key → the types that it may have."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {name}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)
    return {key: types.strip().split(" or ") for key, types in rows}


def fits(document: dict[str, Any], name: str) -> None:
    """The document has the documented keys, no others, and the documented types."""
    wanted = documented(name)
    assert list(wanted), name
    assert set(document) == set(wanted)
    for key, types in wanted.items():
        value = document[key]
        allowed = tuple(
            kind for word in types for kind in ([TYPES[word]] if isinstance(TYPES[word], type) else TYPES[word])
        )
        assert isinstance(value, allowed), f"{name}.{key} is {value!r}, not {types}"
        assert not (isinstance(value, bool) and "boolean" not in types), f"{name}.{key}"


def test_every_document_is_as_the_reference_says(cli: Any):
    run = cli.json("run", "--", "sh", "-c", "exit 3", status=3)
    fits(run, "Run")
    fits(run["output"], "Output")
    fits(run["lease"], "Lease")
    fits(run["environment"], "Environment")
    fits(run["resolution"][0], "Level")
    fits(cli.json("explain"), "Explanation")
    (driver,) = cli.json("drivers")
    fits(driver, "Driver")
    shown = cli.json("lease", "show", run["lease"]["id"])
    assert shown["lease"] == run["lease"]
    for event in (*shown["activity"], *cli.json("activity")["activity"]):
        fits(event, "Event")
    listed = cli.json("lease", "list")
    assert (set(listed), listed["leases"]) == ({"leases"}, [run["lease"]])
    fits(cli.json("reap"), "Sweep")
    fits(cli.json("db", "check"), "Database")
    fits(cli.json("run", "--env", "nope", "--", "true", status=125)["error"], "Error")
    listed = cli.json("env", "list")
    fits(listed["environments"][0], "Environment")
    assert listed["default_id"] is None


def test_options_of_the_group_are_understood_after_the_command_too(cli: Any):
    store = str(cli.work / "other.db")
    assert cli("run", "--store", store, "--", "true").returncode == 0
    assert len(json.loads(cli.look("lease", "list", "--json", "--store", store).stdout)["leases"]) == 1
    assert len(cli.json("lease", "list", SOJOURN_STORE=store)["leases"]) == 1
    assert cli.leases() == []


def test_tenants_do_not_see_each_other(cli: Any):
    assert cli("--tenant", "a", "run", "--", "true").returncode == 0
    lease = cli.json("--tenant", "a", "lease", "list")["leases"][0]["id"]
    assert cli.json("lease", "list")["leases"] == []
    assert cli.look("lease", "show", lease).returncode == 1


def test_explain_shows_every_level_and_leases_nothing(cli: Any):
    shown = cli.ok("explain", "--provision", "make", "--mode", "in_place")
    assert [line.split("  ")[0] for line in shown.splitlines()[1:8]] == [
        *("requested", "execution workspace", "issue", "project", "agent", "tenant", "local")
    ]
    assert re.search(r"^isolation +none$", shown, flags=re.MULTILINE)
    assert re.search(r"^provision +would not run: ", shown, flags=re.MULTILINE)
    assert cli.leases() == []
    assert not cli.places()


def test_environments_are_added_shown_and_archived(cli: Any):
    (cli.work / "config.json").write_text('{"release_grace_seconds": 2.5}')
    cli.ok(
        *("env", "add", "build", "--driver", "local", "--config", "config.json", "--set", 'pass_env=["CI"]'),
        *("-e", "A=1", "--secret", "TOKEN=env:MY_TOKEN", "--description", "for builds", "--max-leases", "2"),
    )
    found = cli.json("env", "show", "build")["environment"]
    assert found["config"] == {"release_grace_seconds": 2.5, "pass_env": ["CI"]}
    assert found["env"] == {"A": "1", "TOKEN": {"secret": "env:MY_TOKEN"}}
    shown = cli.ok("env", "show", "build", MY_TOKEN="canary-4711")
    assert "env:MY_TOKEN" in shown
    assert "canary-4711" not in shown
    assert cli("run", "--env", "build", "--", "sh", "-c", '[ "$TOKEN$CI" = xy ]', MY_TOKEN="x", CI="y").returncode == 0
    cli.ok("env", "archive", "build")
    assert "build" not in cli.ok("env", "list")
    assert "archived" in cli.ok("env", "list", "--all")


def test_a_wrong_configuration_names_the_path_and_not_the_value(cli: Any):
    for words, part in (
        (("--set", "root=relative"), "environments.x.config.root"),
        (("--set", "no_such_key=hunter2"), "no_such_key"),
        (("--set", 'pass_env=["A=hunter2"]'), "pass_env"),
        (("--config", "missing.json"), "missing.json"),
    ):
        done = cli.look("env", "add", "x", "--driver", "local", *words)
        assert done.returncode == 1
        assert part in done.stderr.decode()
        assert b"hunter2" not in done.stderr
    assert cli.json("env", "list")["environments"] == []


def test_a_configuration_is_read_from_stdin(cli: Any):
    done = cli("env", "add", "x", "--driver", "local", "--config", "-", stdin=b'{"allow_unsafe_root": true}')
    assert done.returncode == 0
    assert cli.json("env", "show", "x")["environment"]["config"] == {"allow_unsafe_root": True}
    assert b"not JSON" in cli("env", "add", "y", "--driver", "local", "--config", "-", stdin=b"{nope").stderr


def test_an_active_lease_can_be_extended_and_released_by_hand(cli: Any):
    process = cli.start("run", "--", "sleep", "300")
    lease = cli.active()
    after = cli.json("lease", "extend", lease["id"], "--by", "2h")["lease"]
    assert after["expires_at"] > lease["expires_at"]
    done = cli.json("lease", "release", lease["id"])
    assert (done["released"], done["lease"]["status"], done["errors"]) == (True, "released", [])
    assert process.wait(timeout=30) == 125
    again = cli("lease", "release", lease["id"])
    assert (again.returncode, again.stderr.decode()) == (
        0,
        f"sojourn: lease {lease['id']} was over already: released\n",
    )
    assert cli.look("lease", "extend", lease["id"], "--by", "2h").returncode == 1


def test_lists_are_filtered(cli: Any):
    cli("run", "--run-id", "one", "--", "true")
    cli("run", "--run-id", "two", "--", "false")
    assert [found["run_id"] for found in cli.json("lease", "list", "--run", "one")["leases"]] == ["one"]
    assert [found["run_id"] for found in cli.json("lease", "list", "--status", "failed")["leases"]] == ["two"]
    assert cli.json("lease", "list", "--env", "nope")["leases"] == []
    assert len(cli.json("activity", "--limit", "3")["activity"]) == 3
    lease = cli.leases()[0]["id"]
    assert {event["entity_id"] for event in cli.json("activity", "--entity", lease)["activity"]} == {lease}


@pytest.mark.parametrize(
    "words",
    [
        (),
        *(("run",), ("explain",), ("drivers",), ("drivers", "list"), ("activity",), ("reap",)),
        *(("lease",), ("lease", "list"), ("lease", "show"), ("lease", "release"), ("lease", "extend")),
        *(("env",), ("env", "list"), ("env", "show"), ("env", "add"), ("env", "archive")),
        *(("db",), ("db", "check"), ("db", "upgrade"), ("db", "adopt")),
    ],
    ids=" ".join,
)
def test_every_command_has_help_and_the_reference_names_it(cli: Any, words: tuple[str, ...]):
    shown = cli.ok(*words, "--help")
    assert shown.startswith("Usage: ")
    if words and words not in (("lease",), ("env",), ("db",), ("drivers", "list")):
        assert "Example" in shown
    assert f"`{' '.join(('sojourn', *words))}" in PAGE.read_text(encoding="utf-8")
    for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", shown, flags=re.MULTILINE):
        assert option in PAGE.read_text(encoding="utf-8"), f"{option} is not in the reference"
    assert not cli.state.exists()


def test_help_is_quick_because_it_imports_nothing_heavy():
    heavy = {"sqlalchemy", "alembic", "cattrs", "attrs", "pluggy", "asyncio", "sojourn.orchestrator"}
    program = "import sys, sojourn.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(loaded)


def test_the_version_is_said(cli: Any):
    import sojourn

    assert cli.ok("--version") == f"sojourn {sojourn.__version__}\n"


def test_shell_completion_names_the_commands(cli: Any):
    shown = cli(_SOJOURN_COMPLETE="bash_complete", COMP_WORDS="sojourn lease ", COMP_CWORD="2").stdout.decode()
    assert {"plain,list", "plain,show", "plain,release", "plain,extend"} <= set(shown.split())
