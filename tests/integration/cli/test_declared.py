"""What a repository declares: applied with a diff, used by runs below the options, and never a way to run commands unasked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_person import Terminal, fits, one_line

TOML = """
[defaults]
environment = "build"

[environments.build]
driver = "local"
env = { A = "1", TOKEN = { secret = "env:OLD" } }
config = { pass_env = ["CI"] }
"""
REMOTE = '''
import attrs
from sojourn import hookimpl
from sojourn_local import LocalDriver

class RemoteDriver(LocalDriver):
    """Says of this machine that it is another one."""

    @hookimpl
    def driver_info(self):
        return attrs.evolve(super().driver_info(), name="remote", transport="sandbox")
'''


@pytest.fixture
def declare(cli: Any) -> Callable[[str], Path]:
    """Write the declaration of the folder in which the commands run."""

    def write(text: str, name: str = "sojourn.toml") -> Path:
        file = cli.work / name
        file.write_text(text, "utf-8")
        return file

    return write


# -- apply ------------------------------------------------------------------------------------------------------------


def test_apply_shows_the_difference_and_leaves_alone_what_is_not_declared(cli: Any, declare: Any):
    file = declare(TOML)
    cli.ok("env", "add", "other", "--driver", "local")
    planned = cli.json("env", "apply", "--dry-run")
    fits(planned, "Application")
    assert (planned["file"], planned["applied"], planned["undeclared"]) == (str(file), False, ["other"])
    assert planned["changes"] == [{"name": "build", "action": "create", "fields": []}]
    assert "build" not in cli.ok("env", "list")
    shown = cli.ok("env", "apply")
    assert "+ build: create, on driver local" in shown
    assert "env.TOKEN: secret env:OLD" in shown
    declare(TOML.replace("env:OLD", "env:NEW").replace('["CI"]', '["CI", "HOST"]'))
    before = cli.json("env", "show", "build")["environment"]
    changed = cli.ok("env", "apply")
    assert '      config.pass_env: ["CI"] → ["CI", "HOST"]\n' in changed
    assert "      env.TOKEN: secret env:OLD → secret env:NEW\n" in changed
    assert "Stored and not declared, left alone: other" in changed
    after = cli.json("env", "show", "build")["environment"]
    assert (after["id"], after["created_at"]) == (before["id"], before["created_at"])
    assert after["env"]["TOKEN"] == {"secret": "env:NEW"}
    assert "= build: unchanged" in cli.ok("env", "apply")
    assert cli.json("env", "apply")["changes"][0]["action"] == "unchanged"


def test_an_archived_environment_is_taken_up_again(cli: Any, declare: Any):
    declare(TOML)
    cli.ok("env", "apply")
    cli.ok("env", "archive", "build")
    assert 'status: "archived" → "active"' in cli.ok("env", "apply")
    assert cli.json("env", "show", "build")["environment"]["status"] == "active"


def test_on_a_terminal_apply_asks(cli: Any, declare: Any):
    declare(TOML)
    person = (
        Terminal(cli, "env", "apply").sees("+ build: create").sees("Apply these changes to build? [y/N]: ").says("n")
    )
    assert "nothing was applied" in person.ends(1)
    assert cli.json("env", "list")["environments"] == []
    person = Terminal(cli, "env", "apply").sees("[y/N]: ").says("y")
    assert "applied: build" in person.ends()


def test_all_is_applied_or_nothing(cli: Any, declare: Any):
    declare(TOML + '[environments.later]\ndriver = "local"\nconfig.root = "relative"\n')
    done = cli.look("env", "apply")
    one_line(done, f"{cli.work}/sojourn.toml:11: environments.later.config.root: must be an absolute path")
    assert cli.json("env", "apply", status=1)["error"]["code"] == "declaration_error"
    assert cli.json("env", "list")["environments"] == []


def test_a_file_can_be_named_and_one_that_is_missing_is_told(cli: Any, declare: Any):
    declare("[tool.sojourn.environments.x]\ndriver = 'nowhere'\n", "pyproject.toml")
    done = cli.look("env", "apply", "--file", "pyproject.toml")
    first, note = done.stderr.decode().splitlines()
    assert "no driver named 'nowhere'" in first
    assert note == f"sojourn:   named in {cli.work}/pyproject.toml:2: tool.sojourn.environments.x.driver"
    one_line(cli.look("env", "apply", "--file", "none.toml"), "none.toml: cannot be read: No such file or directory")
    (cli.work / "pyproject.toml").unlink()
    (cli.work / ".git").mkdir()
    one_line(cli.look("env", "apply"), "no sojourn.toml, and no pyproject.toml with [tool.sojourn], from here up")


def test_the_schema_is_for_editors(cli: Any):
    schema = cli.json("env", "schema")
    assert schema["title"] == "sojourn.toml"
    assert set(schema["properties"]) == {"defaults", "environments", "adapters", "workspace"}


# -- run and explain --------------------------------------------------------------------------------------------------


def test_what_is_declared_and_not_applied_is_told_before_anything_is_leased(cli: Any, declare: Any):
    file = declare(TOML)
    done = cli("run", "--", "true")
    one_line(done, f"environment 'build' is declared in {file}:5 and not stored yet; `sojourn env apply`", status=125)
    one_line(cli.look("explain"), "`sojourn env apply`")
    assert cli.json("explain", status=1)["error"]["code"] == "environment_not_found"
    assert cli.json("explain", "--no-config")["problems"] == []
    declare('[defaults]\nenvironment = "nope"\n')
    message, note = cli.look("explain").stderr.decode().splitlines()
    assert "no environment 'nope' (named by: project)" in message
    assert note.endswith("sojourn.toml:2: defaults.environment")
    assert cli.leases() == []


def test_a_file_that_is_not_valid_stops_the_run_with_its_line(cli: Any, declare: Any):
    declare(TOML + "\n[workspace]\nexcludes = []\n")
    one_line(
        cli("run", "--", "true"), "sojourn.toml:11: workspace.excludes: unknown key; known are exclude", status=125
    )
    declare("[defaults\n")
    one_line(cli.look("explain"), "sojourn.toml:1: is not TOML")
    declare(TOML.replace("pass_env", "passenv"))
    one_line(cli("run", "--", "true"), "sojourn.toml:8: environments.build.config.passenv: unknown key", status=125)
    assert cli.leases() == []


def test_defaults_hold_below_the_options(cli: Any, declare: Any):
    file = declare(
        TOML.replace("[defaults]", '[defaults]\nmode = "copy"\ntimeout_seconds = 2')
        + "[workspace]\nexclude = ['*.log']"
    )
    for name in ("a.log", "b.txt"):
        (cli.work / name).write_text("")
    (cli.work / "sub").mkdir()
    cli.ok("env", "apply")
    cli.ok("env", "add", "asked", "--driver", "local")
    env = {"OLD": "s"}
    done = cli("run", "--", "sh", "-c", "echo $A; ls; exec sleep 60", **env)
    assert (done.returncode, done.stdout.decode().split()) == (124, ["1", "b.txt", "sojourn.toml", "sub"])
    done = cli("run", "--env", "asked", "--mode", "in_place", "--timeout", "1m", "--", "sh", "-c", "ls; sleep 2.2")
    assert (done.returncode, done.stdout.decode().split()) == (0, ["a.log", "b.txt", "sojourn.toml", "sub"])
    explained = cli.json("explain", **env)
    fits(explained, "Explanation")
    assert (explained["level"], explained["mode"], explained["timeout_seconds"]) == ("project", "copy", 2.0)
    used = {"environment": "build", "mode": "copy", "timeout_seconds": 2.0, "exclude": ["*.log"]}
    assert explained["declaration"] == {"file": str(file), "used": used}
    assert explained["pending"] is None
    assert [level["reason"] for level in explained["resolution"]][:3] == ["names no environment"] * 3
    asked = cli.json("explain", "--env", "asked", "--mode", "in_place", "--timeout", "2m", **env)
    assert (asked["level"], asked["declaration"]["used"]) == ("requested", {})
    ignored = cli.json("explain", "--no-config")
    assert (ignored["declaration"], ignored["level"], ignored["mode"]) == (None, "local", "in_place")
    shown = cli.ok("explain", "--workspace", "sub", **env)
    assert f"From {file}" in shown


def test_a_branch_goes_with_a_mode_from_the_file_too(cli: Any, declare: Any):
    declare('[defaults]\nmode = "copy"\n')
    assert cli("run", "--branch", "b", "--", "true").returncode == 2
    declare('[defaults]\nmode = "git_worktree"\n')
    one_line(cli("run", "--branch", "b", "--", "true"), "git", status=125)


def test_an_adapter_that_does_not_fit_is_refused_before_a_lease(cli: Any, declare: Any):
    declare('[adapters.command]\ntransports = ["ssh"]\n')
    one_line(cli("run", "--", "true"), "adapter 'command' cannot run in environment 'local'", status=125)
    explained = cli.json("explain", status=1)
    assert "it runs over" not in explained["problems"]
    assert explained["declaration"]["used"] == {"adapters": ["command"]}
    assert cli.leases() == []


def test_another_environments_driver_need_not_be_there(cli: Any, declare: Any):
    declare('[environments.far]\ndriver = "nowhere"\n')
    assert cli("run", "--", "true").returncode == 0
    one_line(cli.look("explain", "--env", "far"), "`sojourn env apply`")


def test_a_run_says_when_the_environment_is_not_as_declared(cli: Any, declare: Any):
    declare(TOML)
    cli.ok("env", "apply")
    declare(TOML.replace('A = "1"', 'A = "2"'))
    done = cli("run", "--", "sh", "-c", "echo $A", OLD="s")
    assert done.stdout == b"1\n"
    assert b"environment 'build' is not as it is declared (env.A); `sojourn env apply`" in done.stderr
    assert cli.json("explain", OLD="s")["pending"] == ["env.A"]


# -- commands from a file ---------------------------------------------------------------------------------------------

TOUCHING = """
[defaults]
provision = "touch {0}/provisioned"
teardown = "touch {0}/torn-down"
"""


@pytest.fixture
def touched(cli: Any, tmp_path: Path, declare: Any) -> Callable[[], set[str]]:
    """Declare commands that leave a mark on this machine; answer which did, since last asked."""
    folder = tmp_path / "marks"
    folder.mkdir()
    declare(TOUCHING.format(folder))

    def look() -> set[str]:
        found = {path.name for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
        return found

    return look


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--declared-commands", "--provision-in-place"),
        ("--mode", "copy", "--provision-in-place"),
    ],
    ids=" ".join,
)
def test_a_cloned_file_makes_nothing_run_here_that_was_not_asked_for(cli: Any, touched: Any, words: tuple[str, ...]):
    assert cli("run", *words, "--", "true").returncode == 0
    assert touched() == set()
    explained = cli.json("explain", *words)
    assert (explained["provision"], explained["teardown"]) == (False, False)
    assert explained["provision_command"].startswith("touch ")
    assert "sojourn.toml" in explained["provision_reason"]
    assert explained["declaration"]["used"] == {}


def test_the_file_cannot_choose_the_mode_that_lets_its_commands_run(cli: Any, touched: Any):
    file = cli.work / "sojourn.toml"
    file.write_text(file.read_text() + 'mode = "copy"\n')
    done = cli("run", "--", "true")
    assert b"--declared-commands allows it" in done.stderr
    assert touched() == set()
    assert cli("run", "--declared-commands", "--", "true").returncode == 0
    assert touched() == {"provisioned", "torn-down"}


def test_in_a_copy_they_run_when_allowed_and_an_option_replaces_them(cli: Any, touched: Any, tmp_path: Path):
    copy = ("run", "--mode", "copy", "--declared-commands")
    assert cli(*copy, "--", "true").returncode == 0
    assert touched() == {"provisioned", "torn-down"}
    assert cli(*copy, "--provision", f"touch {tmp_path}/marks/mine", "--", "true").returncode == 0
    assert touched() == {"mine", "torn-down"}
    explained = cli.json("explain", "--mode", "copy", "--declared-commands", "--teardown", "true")
    assert (explained["provision"], explained["provision_reason"], explained["teardown_command"]) == (
        True,
        None,
        "true",
    )
    assert list(explained["declaration"]["used"]) == ["provision"]


def test_elsewhere_they_run(cli: Any, touched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = tmp_path / "site" / "remote-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "remote_driver.py").write_text(REMOTE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: remote\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sojourn.drivers]\nremote = remote_driver:RemoteDriver\n")
    monkeypatch.syspath_prepend(str(info.parent))
    cli.ok("env", "add", "far", "--driver", "remote")
    explained = cli.json("explain", "--env", "far", "--mode", "copy")
    assert (explained["transport"], explained["provision"], explained["teardown"]) == ("sandbox", True, True)
    assert cli.json("explain", "--env", "far")["provision"] is False
