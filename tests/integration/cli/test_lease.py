"""``sojourn lease exec``, ``shell``, ``destroy`` and ``show``: acting by hand where a run is."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.shell_completion import ShellComplete

from sojourn.cli.app import app
from sojourn.cli.completion import SHELLS
from sojourn.cli.context import State

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/cli.md"


@pytest.fixture
def active(cli: Any) -> Iterator[str]:
    """A run in a copy of the workspace that waits; the id of its lease."""
    (cli.work / "here.txt").write_text("from the workspace\n")
    process = cli.start("run", "--mode", "copy", "-e", "OF_THE_RUN=1", "--", "sh", "-c", "echo started; sleep 300")
    assert process.stdout.readline() == b"started\n"
    yield cli.only_lease()["id"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def terminal(cli: Any, *arguments: str, columns: int = 200, **env: str) -> pexpect.spawn:
    program, *words = cli.words
    return pexpect.spawn(
        program, [*words, *arguments], cwd=str(cli.work), env=cli.env | env, timeout=30, dimensions=(24, columns)
    )


def said(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    return done.returncode, done.stderr.decode()


# -- exec -------------------------------------------------------------------------------------------------------------


def test_exec_runs_beside_the_run_with_our_streams_and_leaves_the_lease(cli: Any, active: str):
    script = 'cat here.txt; cat; echo "$A$SECRET-$OF_THE_RUN"; echo err >&2; exit 7'
    words = ("lease", "exec", active, "-e", "A=1", "--secret", "SECRET=env:MINE", "--", "sh", "-c", script)
    done = cli(*words, stdin=b"typed\n", MINE="two")
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (
        7,
        "from the workspace\ntyped\n1two-\n",
        "err\n",
    )
    assert cli.only_lease()["status"] == "active"


def test_exec_has_the_exit_statuses_of_run(cli: Any, active: str):
    assert said(cli("lease", "exec", active, "--timeout", "0.3", "--", "sleep", "30")) == (
        124,
        "sojourn: the command was ended at its time limit of 0.3 s\n",
    )
    assert cli("lease", "exec", active, "-n", "--", "no-such-program").returncode == 127
    status, err = said(cli("lease", "exec", active, "--cwd", "nope", "--", "true"))
    assert status == 125
    assert re.fullmatch(r"sojourn: cannot run the command in environment 'local'.*/nope' cannot be entered: .*\n", err)
    assert cli.only_lease()["status"] == "active"


def test_exec_has_a_document(cli: Any, active: str):
    done = cli("--json", "lease", "exec", active, "--", "sh", "-c", "echo out; exit 3")
    document = json.loads(done.stdout)
    section = PAGE.read_text(encoding="utf-8").split("\n### Execution\n")[1].split("\n#")[0]
    assert set(document) == set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))
    assert (done.returncode, document["exit_status"], document["output"]["stdout"]) == (3, 3, "out\n")
    assert document["lease"]["id"] == active


def test_ctrl_c_ends_what_exec_started_and_nothing_else(cli: Any, active: str, wait_for: Any):
    before = set(cli.processes())
    child = terminal(cli, "lease", "exec", active, "--", "sh", "-c", "setsid sleep 301 & echo going; sleep 302")
    child.expect("going")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert set(cli.processes()) == before
    assert cli.only_lease()["status"] == "active"


def test_a_lease_that_is_over_takes_no_command(cli: Any):
    cli("run", "--", "true")
    lease = cli.only_lease()["id"]
    over = f"sojourn: lease {lease} is released; only an active one can be used\n"
    assert said(cli("lease", "exec", lease, "--", "true")) == (125, over)
    assert said(cli.look("lease", "shell", lease)) == (125, over)
    unknown = "sojourn: there is no lease 'nope'; `sojourn lease list` shows what there is\n"
    for words in (("exec", "nope", "--", "true"), ("shell", "nope")):
        assert said(cli.look("lease", *words)) == (125, unknown)
    for words in (("show", "nope"), ("destroy", "--yes", "nope"), ("extend", "nope", "--by", "1h")):
        assert said(cli.look("lease", *words)) == (1, unknown)
    assert cli.json("lease", "shell", "nope", status=125)["error"]["code"] == "lease_not_found"


# -- shell ------------------------------------------------------------------------------------------------------------


def test_shell_becomes_a_shell_in_the_place(cli: Any, active: str):
    child = terminal(cli, "lease", "shell", active, SHELL="/bin/sh", PS1="ready> ")
    child.expect("ready> ")
    child.sendline("cat here.txt; stty -a >/dev/null && echo terminal; exit 9")
    child.expect("from the workspace\r\n")
    child.expect("terminal\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 9


def test_the_printed_command_can_be_pasted(cli: Any, active: str):
    printed = cli("lease", "shell", "--print", active).stdout.decode()
    assert printed.count("\n") == 1
    pasted = subprocess.run(
        ["sh", "-c", printed], input=b"cat here.txt\n", capture_output=True, check=True, env={"SHELL": "/bin/sh"}
    )
    assert pasted.stdout == b"from the workspace\n"
    document = cli.json("lease", "shell", active)
    assert set(document) == {"lease_id", "command", "ports"}
    assert document["command"][:2] == ["sh", "-c"]


# -- destroy ----------------------------------------------------------------------------------------------------------


def test_destroy_asks_and_no_means_no(cli: Any, active: str):
    child = terminal(cli, "lease", "destroy", active)
    child.expect(re.escape(f"Destroy active lease {active} in environment local? [y/N]: "))
    child.sendline("n")
    child.expect("sojourn: nothing was done")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    assert cli.only_lease()["status"] == "active"
    done = cli("lease", "destroy", active)
    assert done.returncode == 2
    assert done.stderr.decode().endswith("Error: there is no terminal to ask on; say --yes\n")
    child = terminal(cli, "lease", "destroy", active)
    child.expect("y/N")
    child.sendline("y")
    child.expect(f"sojourn: lease {active} is expired")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert cli.places() == []
    assert said(cli("lease", "destroy", "-y", active)) == (0, f"sojourn: lease {active} was over already: expired\n")


def test_a_place_that_cannot_be_destroyed_is_said_and_waits(cli: Any, flaky: Path):
    flaky.touch()
    cli("run", "--env", "flaky", "--", "true")
    lease = cli.only_lease()["id"]
    done = cli("--json", "lease", "destroy", "--yes", "--failed", "it was full", lease)
    document = json.loads(done.stdout)
    assert (done.returncode, document["released"]) == (1, False)
    assert "was not proven gone" in document["errors"][0]["message"]
    shown = cli.ok("lease", "show", lease)
    assert re.search(
        r"^state +waits for clean-up.*: its place is not proven gone, tried \d+ times?$", shown, re.MULTILINE
    )
    assert re.search(r"^next +(an attempt is due|next attempt from .*, now by `sojourn reap --force`)", shown, re.M)
    assert re.search(r"^last error +Unavailable: the provider is down \\x1b", shown, re.MULTILINE)
    flaky.unlink()
    assert cli("lease", "destroy", "--yes", lease).returncode == 0
    assert "its place is proven gone" in cli.ok("lease", "show", lease)


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_says_state_holder_and_what_comes_next(cli: Any, active: str):
    shown = cli.ok("lease", "show", active)
    assert re.search(r"^state +in use since 20\S+Z$", shown, re.MULTILINE)
    assert re.search(rf"^next +ends with its run, .*`sojourn lease shell {active}` goes there$", shown, re.MULTILINE)
    assert re.search(r"^holder +process \d+ on this machine \(holder_\w+\)$", shown, re.MULTILINE)
    assert re.search(r"^folder +/.*/workspace$", shown, re.MULTILINE)
    cli.sql("UPDATE leases SET expires_at = '2020-01-01T00:00:00.000000Z'")
    assert re.search(r"^state +past its lifetime", cli.ok("lease", "show", active), re.MULTILINE)
    (process,) = cli.started
    process.kill()
    process.wait()
    shown = cli.ok("lease", "show", active)
    assert re.search(r"^state +in use since \S+, by a process that is gone$", shown, re.MULTILINE)
    assert re.search(r"^next +`sojourn reap` takes it over", shown, re.MULTILINE)
    assert cli("reap").returncode == 0


# -- help and completion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [("doctor",), ("completion",), ("lease", "exec"), ("lease", "shell"), ("lease", "destroy"), ("db", "check")],
    ids=" ".join,
)
def test_help_says_what_it_does_with_examples_and_exit_status(cli: Any, words: tuple[str, ...]):
    shown = cli.ok(*words, "--help")
    page = PAGE.read_text(encoding="utf-8")
    assert "Example" in shown
    assert re.search(r"Exit\s+status", shown)
    assert f"`{' '.join(('sojourn', *words))}" in page
    for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", shown, flags=re.MULTILINE):
        assert option in page, f"{option} is not in the reference"
    assert max(map(len, shown.splitlines())) <= 100
    assert not cli.state.exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_completion_script_names_the_command(cli: Any, shell: str):
    script = cli("completion", shell).stdout.decode()
    assert "_SOJOURN_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.encode(), check=True)
        subprocess.run(["bash", "-c", f"{script}\ncomplete -p sojourn"], check=True, capture_output=True)


def completed(cli: Any, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """Complete in this process what click would in one of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", cli.env["XDG_STATE_HOME"])
    monkeypatch.delenv("SOJOURN_STORE", raising=False)
    *words, incomplete = line.split(" ")
    found = ShellComplete(app, {"obj": State()}, "sojourn", "_SOJOURN_COMPLETE").get_completions(words[1:], incomplete)
    return [item.value for item in found]


def test_names_are_completed_from_the_store(cli: Any, active: str, monkeypatch: pytest.MonkeyPatch):
    for line, names in (
        ("sojourn run --env lo", ["local"]),
        ("sojourn env add x --driver ", ["local"]),
        ("sojourn lease shell ", [active]),
        ("sojourn lease show nothing", []),
        ("sojourn --tenant other lease show ", []),
    ):
        assert completed(cli, monkeypatch, line) == names, line
    asked = {"_SOJOURN_COMPLETE": "bash_complete", "COMP_WORDS": "sojourn lease exec ", "COMP_CWORD": "3"}
    done = cli(**asked)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"plain,{active}\n", b"")


def test_completion_makes_no_store_and_never_fails(cli: Any, monkeypatch: pytest.MonkeyPatch):
    assert completed(cli, monkeypatch, "sojourn lease show ") == []
    assert not cli.state.exists()
    (cli.work / "bad.db").write_bytes(b"no database")
    for store in ("/nonexistent/x.db", str(cli.work / "bad.db"), "postgresql://db/x", "mysql://x", ":"):
        assert completed(cli, monkeypatch, f"sojourn --store {store} lease show ") == []
    assert sorted(path.name for path in cli.work.iterdir()) == ["bad.db"]
