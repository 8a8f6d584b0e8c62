"""Environments by hand: asked for on a terminal, said by options elsewhere; changed, probed, removed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_person import Terminal, fits, one_line

DRIVER = """
from enum import StrEnum
import attrs
from sojourn import Diagnostic, ProbeReport, Secret, hookimpl
from sojourn_local import LocalDriver

class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"

def whole(_, __, value):
    if not value.startswith("h"):
        raise ValueError("must begin with h")

@attrs.frozen(kw_only=True)
class Config:
    host: str = attrs.field(validator=whole, metadata={"help": "Where it is."})
    key: Secret = attrs.field(metadata={"help": "To get in."})
    port: int = attrs.field(default=22, metadata={"help": "TCP port."})
    size: Size = Size.SMALL
    tags: tuple[str, ...] = ()
    labels: dict[str, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self):
        if self.port == 1 and self.size is Size.LARGE:
            from sojourn import InvalidConfig
            raise InvalidConfig("port", "a large one has another port")

class FarDriver(LocalDriver):
    @hookimpl
    def driver_info(self):
        return attrs.evolve(super().driver_info(), name="far", config_class=Config)

    @hookimpl
    def probe(self, request):
        ok = request.config.host == "here"
        found = () if ok else (Diagnostic(level="error", message="nobody answers", hint="say here"),)
        return ProbeReport(ok=ok, summary="it answers" if ok else "no answer", diagnostics=found)
"""
SECRET = "correct-horse-4711"


@pytest.fixture
def far(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Install a driver that needs something, for this process; answer what makes it known to another one."""
    info = tmp_path / "site" / "far-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "far_driver.py").write_text(DRIVER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sojourn.drivers]\nfar = far_driver:FarDriver\n")
    monkeypatch.syspath_prepend(str(info.parent))
    cli.env |= {"KEY": SECRET}
    return {"PYTHONPATH": str(info.parent)}


# -- a person ---------------------------------------------------------------------------------------------------------


def test_from_help_to_a_run_in_an_environment_of_ones_own(cli: Any):
    assert "env" in Terminal(cli, "--help").ends()
    person = Terminal(cli, "env", "add", "mine")
    person.sees("Installed drivers: local").sees("driver [local]: ").says("")
    person.sees("Change settings that have a default (root, pass_env, path,").sees("[y/N]: ").says("y")
    person.sees("root (text): ").says("relative").sees("must be an absolute path").sees("root (text): ")
    person.says(str(cli.work / "root")).sees("pass_env (several: ").says("MINE, OTHER")
    person.sees("path (text): ").says("").sees("release_grace_seconds (number) [1.0]: ").says("soon")
    person.sees("is not a number").sees("[1.0]: ").says("").sees("allow_unsafe_root (yes or no) [no]: ").says("maybe")
    person.sees("is neither yes nor no").sees("[no]: ").says("y").sees("Probe it now? [Y/n]: ").says("")
    assert "usable       yes" in person.ends()
    found = cli.json("env", "show", "mine")["environment"]
    assert found["config"] == {
        "root": str(cli.work / "root"),
        "pass_env": ["MINE", "OTHER"],
        "allow_unsafe_root": True,
    }
    ran = Terminal(cli, "run", "--env", "mine", "--", "sh", "-c", "echo got:$MINE", MINE="1")
    assert "got:1" in ran.ends()


def test_what_a_driver_needs_is_asked_and_a_secret_is_never_taken(cli: Any, far: dict[str, str]):
    person = Terminal(cli, "env", "add", "there", "--driver", "far", "--set", "size=large", **far)
    person.sees("Where it is.").sees("host (text): ").says("").sees("is needed").sees("host (text): ")
    person.says("away").sees("must begin with h").sees("host (text): ").says("here")
    person.sees("key (where the secret is: env:NAME or file:PATH, not the secret itself): ")
    person.child.waitnoecho(0.1)
    person.child.setecho(False)
    person.says(SECRET).sees("is neither env:NAME nor file:PATH (what was typed is not shown)")
    person.sees("): ").says("env:KEY").sees("[y/N]: ").says("y").sees("port (whole number) [22]: ").says("1")
    person.sees("tags (").says("").sees("labels (as a JSON object): ").says("{").sees("is not JSON").sees("): ")
    person.says('{"a": 1}').sees("port: a large one has another port").sees("[22]: ").says("2022")
    person.sees("[Y/n]: ").says("n")
    assert SECRET not in person.ends().replace(f"{SECRET}\r\n", "", 1)
    found = cli.json("env", "show", "there")["environment"]
    assert found["config"] == {
        "host": "here",
        "key": "env:KEY",
        "size": "large",
        "port": 2022,
        "labels": {"a": 1},
    }
    assert SECRET.encode() not in (cli.state / "sojourn.db").read_bytes()


def test_ctrl_c_and_a_name_that_is_taken_store_nothing(cli: Any):
    person = Terminal(cli, "env", "add", "mine").sees("driver [local]: ")
    person.child.sendintr()
    person.ends(130)
    assert cli.json("env", "list")["environments"] == []
    cli.ok("env", "add", "mine", "--driver", "local")
    assert "`sojourn env edit mine` changes it" in Terminal(cli, "env", "add", "mine").ends(1)


def test_no_input_and_defaults_ask_nothing_that_needs_no_answer(cli: Any):
    assert "is stored" in Terminal(cli, "env", "add", "a", "--driver", "local", "--no-input").ends()
    person = Terminal(cli, "env", "add", "b", "--driver", "local", "--defaults", "--no-probe")
    assert "?" not in person.ends()


def test_removing_asks_first(cli: Any):
    cli.ok("env", "add", "mine", "--driver", "local")
    assert "say --yes" in cli("env", "remove", "mine").stderr.decode()
    person = Terminal(cli, "env", "remove", "mine").sees("Remove environment mine? [y/N]: ").says("")
    assert "nothing was removed" in person.ends(1)
    person = Terminal(cli, "env", "remove", "mine").sees("[y/N]: ").says("y")
    assert "active leases  none" in person.ends()
    assert cli.json("env", "list", "--all")["environments"] == []


# -- by options -------------------------------------------------------------------------------------------------------


def test_without_a_terminal_all_that_is_missing_is_one_error(cli: Any, far: dict[str, str]):
    done = cli.look("env", "add", "x", "--driver", "far")
    one_line(done, "environments.x.config: driver far needs host, key; say each with --set KEY=VALUE, or --config FILE")
    one_line(
        cli.look("env", "add", "x", "--driver", "far", "--set", "host=h", "--set", f"key={SECRET}"),
        "environments.x.config.key: is not a secret reference like env:NAME or file:PATH (the text is not shown)",
    )
    assert SECRET not in done.stderr.decode()
    cli.ok("env", "add", "x", "--driver", "far", "--set", "host=h1", "--set", "key=env:KEY", "--set", "labels.a=3")
    assert cli.json("env", "show", "x")["environment"]["config"] == {"host": "h1", "key": "env:KEY", "labels": {"a": 3}}
    one_line(cli.look("env", "add", "a b", "--driver", "far"), "a name is up to 63 letters")
    assert cli.look("env", "add", "y").returncode == 2


def test_text_that_looks_like_json_stays_text_where_text_is_wanted(cli: Any):
    cli.ok("env", "add", "x", "--driver", "local", "--set", "path=null", "--set", 'root="/srv/x"')
    assert cli.json("env", "show", "x")["environment"]["config"] == {"path": None, "root": "/srv/x"}


def test_every_field_has_an_option_and_edit_changes_each(cli: Any):
    added = cli.json(
        *("env", "add", "x", "--driver", "local", "-e", "A=1", "--secret", "T=env:T", "--max-leases", "3"),
        *("--require-probe", "--timeout", "acquire=2m", "--description", "old", "--policy", "ephemeral", "--probe"),
    )
    fits(added["environment"], "Environment")
    fits(added["probe"], "Probe")
    assert added["environment"]["timeouts"] == {"acquire": 120.0}
    edited = cli.json(
        *("env", "edit", "x", "--set", 'pass_env=["B"]', "-e", "B=2", "--unset-env", "A", "--no-max-leases"),
        *("--no-require-probe", "--timeout", "probe=5", "--unset-timeout", "acquire", "--description", "new"),
        *("--secret", "T=file:/t"),
    )["environment"]
    fits(edited, "Environment")
    assert {name: edited[name] for name in ("config", "env", "max_leases", "require_probe", "timeouts")} == {
        "config": {"pass_env": ["B"]},
        "env": {"B": "2", "T": {"secret": "file:/t"}},
        "max_leases": None,
        "require_probe": False,
        "timeouts": {"probe": 5.0},
    }
    assert cli.json("env", "edit", "x", "--unset", "pass_env")["environment"]["config"] == {}
    assert b"is as it was" in cli.look("env", "edit", "x", "--description", "new").stderr
    one_line(cli.look("env", "edit", "x", "--unset", "nope"), "--unset nope: the configuration does not say it")
    one_line(cli.look("env", "edit", "x", "--timeout", "build=3"), "environments.x.timeouts.build: unknown; known are")
    one_line(cli.look("env", "edit", "nope", "--unset", "a"), "no environment 'nope'. There are: x")
    assert cli.look("env", "edit", "x").returncode == 2


def test_archived_and_taken_up_again(cli: Any):
    cli.ok("env", "add", "x", "--driver", "local")
    assert cli.json("env", "archive", "x")["environment"]["status"] == "archived"
    assert cli.json("env", "unarchive", "x")["environment"]["status"] == "active"


def test_the_default_is_used_and_local_is_always_there(cli: Any):
    assert cli.json("env", "show", "local")["environment"]["id"] is None
    cli.ok("env", "add", "x", "--driver", "local")
    default = cli.json("env", "default", "x")["default_id"]
    assert default == cli.json("env", "list")["default_id"]
    assert cli.json("explain")["environment"]["name"] == "x"
    assert cli.json("env", "default", "local")["default_id"].startswith("env_")
    assert cli.json("env", "default", "--none") == {"default_id": None}
    one_line(cli.look("env", "default", "nope"), "no environment 'nope'. There are: local, x")
    assert cli.look("env", "default").returncode == 2


def test_probes_of_what_is_stored_and_of_drafts(cli: Any, far: dict[str, str]):
    draft = ("env", "probe", "--driver", "far", "--set", "key=env:KEY", "--set")
    good = cli.json(*draft, "host=here")["probe"]
    fits(good, "Probe")
    assert (good["ok"], good["environment"]) == (True, None)
    bad = cli.look("env", "probe", "--driver", "far", "--set", "key=env:KEY", "--set", "host=h")
    assert bad.returncode == 0
    assert "error: nobody answers → say here" in bad.stdout.decode()
    failed = cli.json(*draft, "host=h", "--strict", status=1)["error"]
    assert (failed["code"], failed["details"]["probe"]["summary"]) == ("probe_failed", "no answer")
    one_line(cli.look(*draft, "host=h", "--strict"), "the draft (driver far) is not usable: no answer")
    cli.ok("env", "add", "x", "--driver", "far", "--set", "key=env:NOT_SET", "--set", "host=here")
    stored = cli.json("env", "probe", "x")["probe"]
    assert (stored["ok"], stored["environment"]) == (False, "x")
    assert "NOT_SET" in stored["diagnostics"][0]["message"]
    assert cli.look("env", "probe").returncode == 2


def test_removing_says_what_is_hit_and_is_blocked_by_a_run(cli: Any):
    cli.ok("env", "add", "x", "--driver", "local", "--secret", "T=env:T")
    cli.ok("env", "default", "x")
    process = cli.start("run", "--", "sleep", "300", env=cli.env | {"T": "t"})
    lease = cli.active()["id"]
    planned = cli.json("env", "remove", "x", "--dry-run", status=1)
    fits(planned, "Removal")
    assert (planned["active_leases"], planned["selections"], planned["secrets"], planned["blocked"]) == (
        [lease],
        ["tenant default"],
        ["env:T"],
        True,
    )
    done = cli.look("env", "remove", "x")
    one_line(done, f"environment 'x' is used by 1 active lease(s): {lease}")
    assert f"active leases  {lease}" in done.stdout.decode()
    assert cli.json("env", "remove", "x", status=1)["error"]["code"] == "environment_in_use"
    removed = json.loads(cli("--json", "env", "remove", "x", "--force", "--yes").stdout)
    assert removed["removed"]
    assert process.wait(timeout=30) == 125
    assert cli.json("env", "list")["environments"] == []


# -- in an editor -----------------------------------------------------------------------------------------------------


def editor(cli: Any, *steps: str) -> str:
    """An editor that makes one replacement (``old→new``) each time."""
    program = cli.work / "editor.py"
    program.write_text(
        "import pathlib, sys\n"
        f"steps = {list(steps)!r}\n"
        "count = pathlib.Path(__file__ + '.count'); n = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(n + 1))\n"
        "file = pathlib.Path(sys.argv[1]); old, new = steps[n].split('→')\n"
        "text = file.read_text(); assert old in text, text\n"
        "file.write_text(text.replace(old, new))\n"
    )
    return f"{sys.executable} {program}"


def test_in_an_editor_a_mistake_is_mended_and_nothing_is_lost(cli: Any):
    cli.ok("env", "add", "x", "--driver", "local", "--secret", "T=env:T")
    steps = ('"max_leases": null→"max_leases": 0', '"max_leases": 0→"max_leases": 4')
    person = Terminal(cli, "env", "edit", "x", "--editor", EDITOR=editor(cli, *steps))
    person.sees("environments.x.max_leases: must be a whole number of at least 1").sees("Edit it again? [Y/n]: ").says(
        ""
    )
    assert "environment x is changed: max_leases" in person.ends()
    found = cli.json("env", "show", "x")["environment"]
    assert (found["max_leases"], found["env"]) == (4, {"T": {"secret": "env:T"}})


def test_a_text_that_is_given_up_is_kept(cli: Any, tmp_path: Path):
    cli.ok("env", "add", "x", "--driver", "local")
    done = cli("env", "edit", "x", "--editor", EDITOR=editor(cli, '"local"→"nowhere"'), TMPDIR=str(tmp_path))
    assert done.returncode == 1
    message, note = done.stderr.decode().splitlines()
    assert "no driver named 'nowhere'" in message
    kept = Path(note.rpartition(" ")[2])
    assert "nowhere" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    done = cli("env", "edit", "x", "--editor", EDITOR="false", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert list(tmp_path.glob("sojourn-*.json")) == [kept]
    one_line(cli("env", "edit", "x", "--editor"), "--editor needs a terminal, or $EDITOR")


# -- help -------------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/cli.md"


@pytest.mark.parametrize("name", ["edit", "unarchive", "remove", "probe", "default", "apply", "schema"])
def test_every_command_has_help_with_an_example(cli: Any, name: str):
    shown = cli.ok("env", name, "--help")
    assert "Example" in shown
    assert f"`sojourn env {name}" in PAGE.read_text("utf-8")
    for word in shown.split():
        option = word.split("/")[0].strip(",.;")
        if option.startswith("--") and option.strip("-"):
            assert option.split("=")[0] in PAGE.read_text("utf-8"), option
