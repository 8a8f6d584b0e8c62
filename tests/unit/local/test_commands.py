"""What a command gets and what becomes of it: status, output, input, environment, directory, user, and its id."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import re
import sys
import time
from pathlib import Path

import pytest
from local_driving import IO, Place, eventually, pids_marked

from sojourn import InvalidArgument, Outcome, PermissionDenied

MIB = 1024 * 1024


def test_exit_status_and_both_streams_stay_apart(place: Place) -> None:
    outcome, io = place.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (outcome.outcome, outcome.exit_code, outcome.signal) == (Outcome.EXITED, 3, None)
    assert (io.stdout, io.stderr) == (b"out\n", b"err\n")
    assert outcome.output_complete
    assert outcome.started_at is not None
    assert outcome.started_at.tzinfo is not None


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11)])
def test_a_command_that_kills_itself_is_signaled(place: Place, name: str, number: int) -> None:
    outcome, _ = place.run("sh", "-c", f"kill -{name} $$", timeout_seconds=20.0)
    assert outcome.outcome is Outcome.SIGNALED
    assert (outcome.exit_code, outcome.signal) == (128 + number, f"SIG{name}")


def test_not_found_is_127_and_not_executable_is_126(place: Place) -> None:
    outcome, io = place.run("no-such-program")
    assert (outcome.outcome, outcome.exit_code, io.stderr) == (
        Outcome.EXITED,
        127,
        b"sojourn: no-such-program: not found\n",
    )
    outcome, io = place.run("/etc/passwd")
    assert (outcome.exit_code, io.stderr) == (126, b"sojourn: /etc/passwd: Permission denied\n")
    assert place.run("/")[0].exit_code == 126


def test_the_program_is_looked_up_on_the_path_of_the_command(place: Place, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "my-own-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho mine\n")
    assert place.run("my-own-tool")[0].exit_code == 127
    tool.chmod(0o755)
    _, io = place.run("my-own-tool", env={"PATH": f"{tmp_path}/none:{tool.parent}"})
    assert io.stdout == b"mine\n"


def test_signals_are_at_their_defaults_and_nothing_is_inherited(place: Place) -> None:
    _, io = place.run("sh", "-c", "ls /proc/self/fd | sort -n | tr '\\n' ' '; grep -E 'Sig(Blk|Ign)' /proc/self/status")
    listed, *masks = re.split("Sig...:", io.stdout.decode())
    assert listed.split() == ["0", "1", "2", "3"]
    # 32 and 33 are the C library's own; it does not let anybody change them.
    of_the_c_library = 0b11 << 31
    assert all(int(mask, 16) & ~of_the_c_library == 0 for mask in masks), masks


def test_working_directory(place: Place, tmp_path: Path) -> None:
    assert place.run("pwd")[1].stdout.decode().strip() == str(place.directory / "workspace")
    assert place.run("pwd", cwd=str(tmp_path))[1].stdout.decode().strip() == str(tmp_path)
    for cwd, reason in (
        (f"{tmp_path}/none", "No such file"),
        ("/etc/passwd", "Not a directory"),
        ("etc", "not absolute"),
    ):
        with pytest.raises(InvalidArgument, match=reason):
            place.run("touch", f"{tmp_path}/ran", cwd=cwd)
    assert not (tmp_path / "ran").exists()


def test_arguments_that_cannot_be_are_refused(place: Place) -> None:
    bad = [
        ((), {}),
        (("",), {}),
        (("echo", "a\0b"), {}),
        (("echo", "\ud800"), {}),
        (("true",), {"env": {"A": "x\0secret-value"}}),
        (("true",), {"env": {"BASH_FUNC_x%%": "() { :; }"}}),
        (("true",), {"env": {"A=B": "c"}}),
        (("true",), {"cwd": "/tmp\0"}),
        (("echo", "x" * 8 * MIB), {}),
    ]
    for argv, changes in bad:
        with pytest.raises(InvalidArgument) as caught:
            place.run(*argv, **changes)
        assert "secret-value" not in str(caught.value)


def test_a_mebibyte_of_arguments_arrives(place: Place) -> None:
    words = ["x" * 1000 + str(index) for index in range(1024)]
    _, io = place.run(sys.executable, "-c", "import sys; print(sum(map(len, sys.argv[1:])))", *words)
    assert int(io.stdout) == sum(map(len, words))


def test_the_environment_is_clean_and_the_request_goes_on_top(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOJOURN_STORE", "PYTHONPATH", "VIRTUAL_ENV", "AWS_SECRET_ACCESS_KEY", "PASSED_ON", "LC_TIME"):
        monkeypatch.setenv(name, "of-the-orchestrator")
    monkeypatch.setenv("HOME", "/host-home")
    passing = Place(place.root, "res-env", pass_env=("PASSED_ON",), path="/usr/bin:/bin")
    passing.acquire()
    _, io = passing.run("env", env={"LANG": "C", "ODD": "a b\n'\"$é"})
    env = dict(entry.split("=", 1) for entry in io.stdout.decode().replace("\n'", "\\n'").splitlines())
    assert env == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/host-home",
        "LANG": "C",
        "LC_TIME": "of-the-orchestrator",
        "PASSED_ON": "of-the-orchestrator",
        "ODD": "a b\\n'\"$é",
        "TMPDIR": str(passing.directory / "tmp"),
        "SOJOURN_RESOURCE_ID": "res-env",
        "SOJOURN_RESOURCE_DIR": str(passing.directory),
        **{name: os.environ[name] for name in ("USER", "LOGNAME", "SHELL", "LANGUAGE", "TZ") if name in os.environ},
        **{name: value for name, value in os.environ.items() if name.startswith("LC_")},
    }
    passing.release()


def test_secrets_and_stdin_are_in_no_argv_and_in_no_other_environment(place: Place) -> None:
    secret = "s3cret-unique-5829"

    async def scenario() -> None:
        async def typed():  # type: ignore[no-untyped-def]
            yield f"typed-{secret}".encode()

        task = asyncio.create_task(
            place.execute(IO(typed()), "sleep", "60", env={"TOKEN": secret}, timeout_seconds=1.0)
        )
        await eventually(lambda: pids_marked(secret))
        holders = pids_marked(secret)
        everything = b"".join(_read(f"/proc/{name}/cmdline") for name in os.listdir("/proc") if name.isdigit())
        assert secret.encode() not in everything
        assert [_read(f"/proc/{pid}/comm") for pid in holders] == [b"sleep\n"]
        await task

    asyncio.run(scenario())


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def test_fifty_mebibytes_each_way_arrive_byte_exact(place: Place) -> None:
    chunk = os.urandom(MIB)

    async def source():  # type: ignore[no-untyped-def]
        for _ in range(50):
            yield chunk

    class Hashing(IO):
        def __init__(self) -> None:
            super().__init__(source())
            self.hash = hashlib.sha256()
            self.size = 0

        async def write(self, stream: str, data: bytes) -> None:
            assert stream == "stdout"
            self.hash.update(data)
            self.size += len(data)

    async def scenario() -> None:
        io = Hashing()
        outcome = await place.execute(io, "cat")
        assert outcome.exit_code == 0
        assert outcome.output_complete
        assert io.size == 50 * MIB
        assert io.hash.digest() == hashlib.sha256(chunk * 50).digest()

    asyncio.run(scenario())


def test_a_command_that_does_not_read_its_stdin_is_normal(place: Place) -> None:
    async def scenario() -> None:
        async def endless():  # type: ignore[no-untyped-def]
            while True:
                yield b"x" * MIB

        async def silent():  # type: ignore[no-untyped-def]
            yield b"hello"
            await asyncio.Event().wait()

        assert (await place.execute(IO(endless()), "head", "-c", "3")).exit_code == 0
        io = IO(silent())
        assert (await place.execute(io, "head", "-c", "5")).exit_code == 0
        assert io.stdout == b"hello"
        io = IO()
        await place.execute(io, "sh", "-c", "cat; echo end")
        assert io.stdout == b"end\n", "no stdin is an empty one"

    asyncio.run(scenario())


def test_output_streams_before_the_end_and_a_slow_reader_holds_the_command(place: Place) -> None:
    class Slow(IO):
        first_at = 0.0

        async def write(self, stream: str, data: bytes) -> None:
            self.first_at = self.first_at or time.monotonic()
            await super().write(stream, data)
            await asyncio.sleep(0.005)

    async def scenario() -> None:
        io = Slow()
        outcome = await place.execute(io, "sh", "-c", "echo early; sleep 0.3; head -c 3000000 /dev/zero")
        assert time.monotonic() - io.first_at > 0.25
        assert outcome.output_complete
        assert len(io.stdout) == 3000006

    asyncio.run(scenario())


def test_a_background_child_neither_holds_the_call_nor_shows_up_later(place: Place) -> None:
    async def scenario() -> None:
        started = time.monotonic()
        io = IO()
        script = "(sleep 0.4; echo late; echo late >&2; sleep 0.2; echo alive > proof) & echo now; exit 5"
        outcome = await place.execute(io, "sh", "-c", script)
        assert outcome.exit_code == 5
        assert time.monotonic() - started < 0.35
        assert io.stdout == b"now\n"
        other = IO()
        await place.execute(other, "sh", "-c", "sleep 0.8; echo mine")
        assert other.stdout == b"mine\n"
        assert other.stderr == io.stderr == b""
        proof = place.directory / "workspace" / "proof"
        assert proof.read_text() == "alive\n", "it did not die of a closed pipe"

    asyncio.run(scenario())


def test_the_tail_of_a_pipeline_in_the_background_arrives(place: Place) -> None:
    _, io = place.run("bash", "-c", "exec > >(sleep 0.03; cat); echo through tee")
    assert io.stdout == b"through tee\n"


def test_commands_run_in_parallel_and_do_not_mix(place: Place) -> None:
    async def scenario() -> None:
        await place.execute(IO(), "true")
        ios = [IO() for _ in range(12)]
        started = time.monotonic()
        jobs = [
            place.execute(io, "sh", "-c", f"echo {n}; sleep 0.5; echo {n}", timeout_seconds=0.2 if n == 5 else None)
            for n, io in enumerate(ios)
        ]
        outcomes = await asyncio.gather(*jobs)
        assert time.monotonic() - started < 1.2
        for n, (outcome, io) in enumerate(zip(outcomes, ios, strict=True)):
            assert outcome.outcome is (Outcome.TIMED_OUT if n == 5 else Outcome.EXITED)
            assert io.stdout == f"{n}\n".encode() * (1 if n == 5 else 2)

    asyncio.run(scenario())


def test_one_exec_id_is_one_run(place: Place) -> None:
    async def scenario() -> None:
        request = place.request("sh", "-c", "echo x >> runs; sleep 0.2; exit 9", exec_id="once")
        first, second = IO(), IO()
        outcomes = await asyncio.gather(place.driver.execute(request, first), place.driver.execute(request, second))
        again = await place.driver.execute(request, IO())
        assert [outcome.exit_code for outcome in (*outcomes, again)] == [9, 9, 9]

    asyncio.run(scenario())
    assert (place.directory / "workspace" / "runs").read_text() == "x\n"


def test_an_exec_id_whose_start_was_refused_may_be_used_again(place: Place, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        place.run("true", exec_id="again", cwd=f"{tmp_path}/none")
    assert place.run("true", exec_id="again")[0].exit_code == 0


def test_a_stop_before_the_start_runs_nothing(place: Place) -> None:
    async def scenario() -> None:
        io = IO()
        io.stop.set()
        outcome = await place.execute(io, "touch", "ran")
        assert outcome.outcome is Outcome.CANCELLED
        assert outcome.kill_confirmed

    asyncio.run(scenario())
    assert not (place.directory / "workspace" / "ran").exists()


def test_descriptors_do_not_pile_up(place: Place) -> None:
    async def scenario() -> None:
        async def typed():  # type: ignore[no-untyped-def]
            yield b"x"

        async def some() -> None:
            for _ in range(8):
                await place.execute(IO(typed()), "sh", "-c", "cat; echo x >&2; sleep 0.3 &")
                await place.execute(IO(), "no-such-program")
                await place.execute(IO(), "sleep", "9", timeout_seconds=0.02, grace_seconds=0.1)

        await some()
        ours = len(os.listdir("/proc/self/fd"))
        await some()
        await some()
        assert len(os.listdir("/proc/self/fd")) == ours

    asyncio.run(scenario())


def test_the_supervisor_keeps_no_descriptors_and_few_monitors(place: Place) -> None:
    from local_driving import supervision_pids

    async def scenario() -> None:
        await asyncio.gather(*(place.execute(IO(), "sleep", "0.1") for _ in range(10)))
        supervisor = supervision_pids(place.directory)[0]
        before = len(os.listdir(f"/proc/{supervisor}/fd"))
        for _ in range(20):
            await place.execute(IO(), "true")
        await eventually(lambda: len(os.listdir(f"/proc/{supervisor}/fd")) <= before)
        await eventually(lambda: len(supervision_pids(place.directory)) <= 2)

    asyncio.run(scenario())


def test_an_unknown_user_is_refused(place: Place) -> None:
    with pytest.raises(InvalidArgument, match="no user"):
        place.run("true", user="no-such-user")
    with pytest.raises(InvalidArgument, match="no user"):
        place.run("true", user="4294967294123")
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert place.run("id", "-un", user=name)[1].stdout.decode().strip() == name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_runs_as_another_user_without_its_own_groups(place: Place) -> None:
    outcome, io = place.run(
        "sh", "-c", "id -u; id -G; echo $HOME; cd; exec sleep 30", user="nobody", cwd="/", timeout_seconds=0.5
    )
    entry = pwd.getpwnam("nobody")
    uid, groups, home = io.stdout.decode().split("\n")[:3]
    assert (int(uid), home) == (entry.pw_uid, entry.pw_dir)
    assert "0" not in groups.split()
    assert outcome.outcome is Outcome.TIMED_OUT
    assert outcome.kill_confirmed
    assert place.run("no-such-program", user="nobody", cwd="/")[0].exit_code == 127
    with pytest.raises(InvalidArgument, match="cannot be entered"):
        place.run("true", user="nobody", cwd=str(place.directory))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_another_user_needs_root(place: Place) -> None:
    with pytest.raises(PermissionDenied):
        place.run("true", user="root")
