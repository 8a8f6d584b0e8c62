"""Ctrl-C, SIGTERM, a reader that goes away, and kill -9: the command's processes go, and the record says so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import Any

import pexpect
import pytest

TREE = "setsid sleep 300 & echo started; sleep 300"
STUBBORN = "trap '' TERM; echo started; while :; do sleep 1; done"


def started(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_tree_and_gives_the_lease_back(cli: Any, number: int, status: int):
    process = cli.start("run", "--", "sh", "-c", TREE)
    started(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, b"")
    assert cli.processes() == []
    assert cli.places() == []
    lease = cli.only_lease()
    assert (lease["status"], lease["cleanup_status"]) == ("expired", "success")


def test_what_the_command_says_at_its_end_is_still_shown(cli: Any):
    process = cli.start(
        "run", "--", "sh", "-c", "trap 'echo bye; exit 0' TERM; echo started; while :; do sleep 0.05; done"
    )
    started(process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"bye\n")


def test_an_interrupted_run_has_a_document_too(cli: Any):
    process = cli.start("--json", "run", "--", "sh", "-c", TREE)
    cli.active()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b'"exit_status": 130' in out or b'"code": "interrupted"' in out


def test_the_second_signal_stops_waiting_and_reap_does_the_rest(cli: Any, wait_for: Any):
    process = cli.start("run", "--", "sh", "-c", STUBBORN)
    started(process)
    lease = cli.active()["id"]
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - before < 2
    assert process.returncode == 130
    assert err.decode() == f"sojourn: stopped waiting; lease {lease} is left, `sojourn reap` will get it\n"
    assert cli("reap").returncode == 0
    assert cli.only_lease()["cleanup_status"] == "success"
    wait_for(lambda: not cli.processes())
    assert cli.places() == []


def test_nohup_is_respected(cli: Any):
    process = cli.start(
        "run",
        "--",
        "sh",
        "-c",
        "echo started; sleep 1",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    started(process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 0


def test_a_reader_that_goes_away_ends_the_tree_quietly(cli: Any):
    process = cli.start("run", "--", "sh", "-c", "setsid sleep 300 & yes")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141
    assert cli.processes() == []
    assert cli.only_lease()["cleanup_status"] == "success"


def test_a_reader_that_goes_away_ends_a_listing_quietly(cli: Any):
    cli("run", "--", "true")
    reader, writer = os.pipe()
    os.close(reader)
    process = cli.start("lease", "list", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, b"")


def test_after_kill_9_reap_puts_all_right_at_once(cli: Any, wait_for: Any):
    process = cli.start("run", "--mode", "copy", "--", "sh", "-c", TREE)
    started(process)
    process.kill()
    process.communicate(timeout=30)
    planned = cli.json("reap", "--dry-run")
    assert [item["result"] for item in planned["items"]] == ["planned"]
    assert cli.only_lease()["status"] == "active"
    report = cli.json("reap")
    assert [item["result"] for item in report["items"]] == ["gone"]
    assert "is gone" in report["items"][0]["why"]
    wait_for(lambda: not cli.processes())
    lease = cli.only_lease()
    assert (lease["outcome"], lease["cleanup_status"]) == ("failed", "success")
    assert cli.places() == []
    assert cli.ok("reap") == ""


def test_a_lease_released_by_somebody_else_ends_the_run(cli: Any):
    process = cli.start("run", "--", "sh", "-c", TREE)
    started(process)
    lease = cli.active()["id"]
    assert cli("lease", "release", lease, "--failed", "\x1b]0;pwned\x07").returncode == 0
    _, err = process.communicate(timeout=30)
    assert process.returncode == 125
    assert b"Traceback" not in err
    assert cli.processes() == []
    for words in (("lease", "list"), ("lease", "show", lease), ("activity",)):
        shown = cli.ok(*words)
        assert "\x1b" not in shown
        assert "\\x1b]0;pwned\\x07" in shown


# -- on a terminal ----------------------------------------------------------------------------------------------------


def terminal(cli: Any, *arguments: str, **env: str) -> pexpect.spawn:
    program, *words = cli.words
    return pexpect.spawn(
        program, [*words, *arguments], cwd=str(cli.work), env=cli.env | env, timeout=30, dimensions=(24, 200)
    )


def test_ctrl_c_on_a_terminal_ends_the_tree(cli: Any):
    child = terminal(cli, "run", "--", "sh", "-c", TREE)
    child.expect("started")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert cli.processes() == []
    assert cli.only_lease()["status"] == "expired"


def test_what_is_typed_reaches_the_command(cli: Any):
    child = terminal(cli, "run", "--", "sh", "-c", "read line; echo got:$line")
    child.sendline("hello")
    child.expect("got:hello")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_tables_are_bold_on_a_terminal_and_plain_elsewhere(cli: Any):
    cli("run", "--", "true")
    assert "\x1b" not in cli.ok("lease", "list")
    child = terminal(cli, "lease", "list")
    child.expect(pexpect.EOF)
    assert b"\x1b[1m" in child.before
    child.close()
    child = terminal(cli, "lease", "list", NO_COLOR="1")
    child.expect(pexpect.EOF)
    assert b"\x1b" not in child.before
    assert re.search(rb"LEASE +STATUS", child.before)
    child.close()


def test_activity_can_be_followed(cli: Any):
    child = terminal(cli, "activity", "--follow")
    time.sleep(0.5)
    cli("run", "--", "true")
    child.expect("environment.lease_released")
    child.sendintr()
    child.expect(pexpect.EOF)
    assert b"Traceback" not in child.before
    child.close()
    assert child.exitstatus == 130
