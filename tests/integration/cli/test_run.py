"""``sojourn run``: the command's own streams and exit status, and nothing left afterwards."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

MIB = 1024 * 1024


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("true", 0), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)]
)
def test_the_exit_status_is_the_commands_own(cli: Any, script: str, status: int):
    assert cli("run", "--", "sh", "-c", script).returncode == status


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_126(cli: Any):
    (cli.work / "plain").write_text("no program")
    assert cli("run", "--", "no-such-command").returncode == 127
    assert cli("run", "--", "./plain").returncode == 126


def test_a_plain_successful_run_says_nothing_of_its_own(cli: Any):
    done = cli("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")


def test_options_end_where_the_command_begins(cli: Any):
    done = cli("run", "printf", "%s.", "--json", "-q", b"\xff")
    assert (done.returncode, done.stdout) == (0, b"--json.-q.\xff.")


def test_a_run_without_set_up_leaves_one_released_lease_two_activities_and_nothing_else(cli: Any):
    assert cli("run", "--", "true").returncode == 0
    lease = cli.only_lease()
    assert (lease["status"], lease["cleanup_status"], lease["failure_reason"]) == ("released", "success", None)
    actions = [event["action"] for event in cli.json("activity")["activity"]]
    assert actions == ["environment.lease_acquired", "environment.lease_released"]
    assert cli.places() == []
    assert not list(cli.work.iterdir())
    assert cli.sql("SELECT count(*) FROM holders") == [(0,)]
    assert {path.name.partition("-")[0] for path in cli.state.iterdir()} <= {"sojourn.db", "local"}


def test_a_red_command_makes_a_failed_lease_whose_reason_names_no_argument(cli: Any):
    assert cli("run", "--", "sh", "-c", "exit 7 # hunter2").returncode == 7
    lease = cli.only_lease()
    assert (lease["status"], lease["failure_reason"]) == ("failed", "command exited with 7")
    assert b"hunter2" not in b"".join(path.read_bytes() for path in cli.state.glob("sojourn.db*"))


def test_output_is_passed_on_byte_by_byte(cli: Any):
    data = random.Random(1).randbytes(5 * MIB)
    (cli.work / "data").write_bytes(data)
    done = cli("run", "--", "sh", "-c", "cat data; cat data >&2")
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(done.stderr).digest() == hashlib.sha256(data).digest()


def test_stdin_is_passed_on_from_a_pipe(cli: Any):
    data = random.Random(2).randbytes(5 * MIB)
    done = cli("run", "--", "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_with_no_stdin_the_command_gets_an_empty_one(cli: Any):
    done = cli("run", "-n", "--", "wc", "-c", stdin=b"never read")
    assert done.stdout.strip() == b"0"


def test_a_run_without_a_stdin_works(cli: Any):
    process = cli.start("run", "--", "cat", stdin=None, preexec_fn=lambda: os.close(0))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_command_that_does_not_read_its_stdin_does_not_hold_the_end_up(cli: Any):
    reader, writer = os.pipe()
    process = cli.start("run", "--", "true", stdin=reader)
    os.close(reader)
    try:
        assert process.wait(timeout=30) == 0
    finally:
        os.close(writer)


def test_what_comes_after_the_commands_end_is_left_to_the_next_reader(cli: Any, wait_for: Any):
    script = '"$0" -m sojourn run -- head -c 1 && cat'
    process = subprocess.Popen(
        ["sh", "-c", script, cli.words[0]],
        cwd=cli.work,
        env=cli.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    cli.started.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a")
    process.stdin.flush()
    assert process.stdout.read(1) == b"a"
    wait_for(lambda: cli.only_lease()["status"] == "released")
    process.stdin.write(b"later")
    process.stdin.close()
    assert process.stdout.read() == b"later"


def test_closed_standard_descriptors_do_not_become_the_database(cli: Any):
    process = cli.start("run", "--", "sh", "-c", "echo lost; cat", preexec_fn=lambda: os.closerange(0, 3))
    assert process.wait(timeout=30) == 0
    assert cli.only_lease()["status"] == "released"


def test_a_time_limit_ends_the_whole_tree(cli: Any):
    done = cli("run", "--timeout", "1", "--grace", "1", "--", "sh", "-c", "setsid sleep 300 & sleep 300")
    assert done.returncode == 124
    assert done.stderr == b"sojourn: the command was ended at its time limit of 1 s\n"
    assert cli.processes() == []
    assert cli.only_lease()["failure_reason"] == "command timed out"


def test_variables_and_secrets_reach_the_command_and_secrets_no_record(cli: Any):
    script = 'printf "%s|%s|%s" "$PLAIN" "$TOKEN" "$OTHER"'
    arguments = ("run", "-e", "PLAIN=a b", "--secret", "TOKEN=env:MY_TOKEN", "--", "sh", "-c", script)
    done = cli(*arguments, MY_TOKEN="canary-4711", OTHER="not passed on")
    assert done.stdout == b"a b|canary-4711|"
    assert b"canary-4711" not in b"".join(path.read_bytes() for path in cli.state.glob("sojourn.db*"))
    done = cli(*arguments)
    assert done.returncode == 125
    assert b"run.env.TOKEN" in done.stderr
    assert len(cli.leases()) == 1, "a missing secret is noticed before anything is leased"


def test_a_copy_is_thrown_away_and_the_tree_stays_as_it_is(cli: Any):
    (cli.work / "file").write_text("here")
    done = cli("run", "--mode", "copy", "--", "sh", "-c", "cat file; touch made; rm file")
    assert done.stdout == b"here"
    assert [path.name for path in cli.work.iterdir()] == ["file"]
    assert cli.places() == []


def test_provision_and_teardown_run_around_the_command(cli: Any):
    log = cli.work / "log"
    done = cli(
        *("run", "--mode", "copy", "--provision", f"echo provision >> {log}", "--teardown", f"echo teardown >> {log}"),
        *("--", "sh", "-c", f"echo command >> {log}"),
    )
    assert done.returncode == 0
    assert log.read_text().split() == ["provision", "command", "teardown"]
    failed = cli("run", "--mode", "copy", "--provision", "echo no >&2; exit 3", "--", "true")
    assert failed.returncode == 125
    assert failed.stderr.count(b"\n") == 1
    assert b"Failed to provision workspace for environment 'local': exit code 3: no" in failed.stderr


def test_a_git_worktree_says_which_branch_holds_the_work(cli: Any):
    git(cli.work, "init", "-q")
    (cli.work / "file").write_text("1")
    git(cli.work, "add", ".")
    git(cli.work, "commit", "-qm", "first")
    (cli.work / "uncommitted").write_text("2")
    done = cli("run", "--mode", "git_worktree", "--", "sh", "-c", "ls; echo new > new")
    first, second = done.stderr.decode().splitlines()
    assert done.stdout == b"file\n"
    assert first == f"sojourn: 1 uncommitted change is not in the run's worktree of {cli.work}"
    branch = second.split(" on branch ")[1].split()[0]
    assert git(cli.work, "show", f"{branch}:new") == "new\n"
    assert cli.json("run", "--mode", "git_worktree", "--", "true")["branch"]["kept"] is False
    assert git(cli.work, "branch", "--list", "sojourn/*").split() == [branch]
    assert cli("run", "-q", "--mode", "git_worktree", "--", "true").stderr == b""


def test_json_gives_one_document_and_shows_nothing_live(cli: Any):
    done = cli.json(
        "run", "--run-id", "r1", "--agent", "a1", "--", "sh", "-c", r"printf 'a\377b'; echo e >&2; exit 3", status=3
    )
    assert (done["outcome"], done["exit_code"], done["exit_status"], done["signal"]) == ("exited", 3, 3, None)
    assert base64.b64decode(done["output"]["stdout_base64"]) == b"a\xffb"
    assert (done["output"]["stderr"], done["output"]["stderr_base64"]) == ("e\n", None)
    assert (done["lease"]["status"], done["lease"]["run_id"], done["lease"]["agent_id"]) == ("failed", "r1", "a1")


def test_a_lease_that_cannot_be_given_back_is_a_warning_and_changes_no_exit_status(cli: Any, flaky: Path):
    flaky.touch()
    done = cli("run", "--env", "flaky", "--", "sh", "-c", "exit 5")
    assert done.returncode == 5
    assert done.stderr.startswith(b"sojourn: warning: lease ")
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr
    assert cli.only_lease()["status"] == "pending_cleanup"
    assert cli("reap", "--force").returncode == 1
    flaky.unlink()
    report = cli.json("reap", "--force")
    assert [item["result"] for item in report["items"]] == ["gone"]
    assert cli.only_lease()["status"] == "failed"
    assert cli.places() == []


def test_output_that_cannot_be_written_is_our_failure(cli: Any):
    with open("/dev/full", "wb") as full:
        process = cli.start("run", "--", "echo", "hello", stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 125
    assert err == b"sojourn: cannot write to stdout: No space left on device\n"
