"""What is only for a terminal: colours, tables that fit, a line of progress that never mixes with the command's output."""

from __future__ import annotations

import re
from typing import Any

import pexpect
import pytest

ERASE = "\r\x1b[2K"
SLOW = "sleep 0.8"
SLOWER = "sleep 1.3"


def terminal(cli: Any, *arguments: str, columns: int = 200, **env: str) -> pexpect.spawn:
    program, *words = cli.words
    return pexpect.spawn(
        program,
        [*words, *arguments],
        cwd=str(cli.work),
        env=cli.env | env,
        timeout=30,
        dimensions=(24, columns),
        encoding="utf-8",
    )


def shown(cli: Any, *arguments: str, status: int = 0, **options: Any) -> str:
    """Run one on a terminal to its end and return all that was written."""
    child = terminal(cli, *arguments, **options)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == status, child.before
    return child.before


def left_on_screen(text: str) -> str:
    """Do what a terminal does with the line of progress."""
    lines = [line.rpartition(ERASE)[2] for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(lines)


# -- progress ---------------------------------------------------------------------------------------------------------


def test_long_steps_are_named_with_their_time_and_gone_before_the_command_writes(cli: Any):
    out = shown(cli, "run", "--mode", "copy", "--provision", SLOWER, "--teardown", SLOW, "--", "echo", "mine")
    before, after = out.split("mine\r\n")
    assert "sojourn: provisioning, 1 s" in before
    assert before.endswith(ERASE)
    assert "sojourn: running the teardown command" in after
    assert after.endswith(ERASE)
    assert left_on_screen(out) == "mine\n"


@pytest.mark.parametrize("quiet", [("--quiet",), ()], ids=["quiet", "dumb terminal"])
def test_there_is_none_when_it_is_not_wanted(cli: Any, quiet: tuple[str, ...]):
    env = {} if quiet else {"TERM": "dumb"}
    out = shown(cli, "run", *quiet, "--mode", "copy", "--provision", SLOW, "--", "echo", "mine", **env)
    assert out == "mine\r\n"


def test_there_is_none_where_stderr_is_no_terminal(cli: Any):
    done = cli("run", "--mode", "copy", "--provision", SLOW, "--", "echo", "mine")
    assert (done.stdout, done.stderr) == (b"mine\n", b"")


def test_a_line_that_the_command_did_not_end_stays(cli: Any):
    out = shown(cli, "run", "--mode", "copy", "--teardown", SLOW, "--", "printf", "unfinished")
    assert left_on_screen(out) == "unfinished"
    assert "teardown" not in out


def test_a_message_does_not_mix_with_it(cli: Any):
    out = shown(cli, "run", "--mode", "copy", "--provision", "sleep 0.8; exit 3", "--", "true", status=125)
    assert re.fullmatch(r"sojourn: Failed to provision workspace.*exit code 3\n", left_on_screen(out)), out


def test_it_fits_a_narrow_terminal(cli: Any):
    out = shown(cli, "run", "--mode", "copy", "--provision", SLOW, "--", "true", columns=20)
    lines = [line for line in out.split(ERASE) if line]
    assert lines
    assert max(map(len, lines)) < 20


# -- ctrl-c -----------------------------------------------------------------------------------------------------------


def test_one_ctrl_c_says_what_it_waits_for_and_a_second_one_what_is_left(cli: Any, wait_for: Any):
    child = terminal(
        cli, "run", "--grace", "30s", "--", "sh", "-c", "trap '' TERM INT; echo started; while :; do sleep 1; done"
    )
    child.expect("started")
    lease = cli.active()["id"]
    child.sendintr()
    child.expect(f"sojourn: ending the command and giving lease {lease} back; once more to stop waiting for that\r\n")
    child.sendintr()
    child.expect(f"sojourn: stopped waiting; lease {lease} is left, `sojourn reap` will get it\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert cli("reap").returncode == 0
    assert cli.only_lease()["cleanup_status"] == "success"
    wait_for(lambda: not cli.processes())


def test_ctrl_c_while_provisioning_leaves_nothing(cli: Any):
    child = terminal(cli, "run", "--mode", "copy", "--provision", "sleep 300", "--", "true")
    child.expect("provisioning")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert cli.processes() == []
    assert cli.places() == []
    assert cli.only_lease()["status"] == "expired"


# -- tables and colours -----------------------------------------------------------------------------------------------


def test_states_have_colours_on_a_terminal_only(cli: Any):
    cli("run", "--", "false")
    assert "\x1b[31mfailed\x1b[0m" in shown(cli, "lease", "list", columns=250)
    assert "\x1b[32mok\x1b[0m" in shown(cli, "doctor")
    assert "\x1b" not in shown(cli, "doctor", NO_COLOR="1")
    assert "\x1b" not in cli.ok("lease", "list")


@pytest.mark.parametrize("columns", [40, 100])
def test_nothing_is_wider_than_the_terminal(cli: Any, columns: int):
    cli("run", "--", "sh", "-c", "exit 3")
    lease = cli.only_lease()["id"]
    for words in (("lease", "list"), ("doctor",), ("activity",)):
        lines = shown(cli, *words, columns=columns, NO_COLOR="1").split("\r\n")
        # A word that is longer than the line, such as a path, is not cut: it can be copied.
        wide = [line for line in lines if len(line) > columns and "/" not in line and len(line.split()) > 2]
        assert not wide, wide
        if words == ("lease", "list"):
            assert lease in " ".join(lines)


def test_a_narrow_list_has_a_few_lines_for_each_row(cli: Any):
    cli("run", "--", "false")
    out = shown(cli, "lease", "list", columns=60, NO_COLOR="1")
    assert re.search(r"^LEASE +lease_\w+\r\nSTATUS +failed\r\nCLEANUP +success\r$", out, flags=re.MULTILINE)
