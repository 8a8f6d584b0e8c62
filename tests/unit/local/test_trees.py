"""Whole process trees end: on a time limit, a stop, a cancel, and the death of every process that watches over them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_driving import IO, Place, eventually, monitor_of, pids_marked, supervision_pids

from sojourn import Disposition, InvalidArgument, Outcome, ResourceState, StopReason

GRACE_SECONDS = 0.3

# Every kind of descendant that has escaped from somebody: ignoring TERM, in a session of its own, double-forked, holding
# the output, stopped.
WILD_TREE = """
import os, signal, sys, time
def stay(name):
    open(name, "w").write(str(os.getpid()))
    while True:
        time.sleep(60)
for name in ("ignoring", "session", "double", "stopped"):
    if os.fork() == 0:
        if name == "ignoring":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if name in ("session", "double"):
            os.setsid()
        if name == "double" and os.fork():
            os._exit(0)
        if name == "stopped":
            open(name, "w").write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        stay(name)
stay("main")
"""
NAMES = ("ignoring", "session", "double", "stopped", "main")


def wild(place: Place, *, ignoring: bool = True) -> tuple[str, ...]:
    names = "WILD" if ignoring else "TAME"
    script = WILD_TREE if ignoring else WILD_TREE.replace('"ignoring", ', "")
    return (sys.executable, "-I", "-S", "-c", script, names)


def complete(place: Place, names: tuple[str, ...] = NAMES) -> bool:
    files = [place.directory / "workspace" / name for name in names]
    return all(file.exists() and file.read_text() for file in files)


def living(place: Place) -> list[int]:
    return pids_marked(f"SOJOURN_RESOURCE_DIR={place.directory}")


def main_pid(place: Place) -> int:
    return int((place.directory / "workspace" / "main").read_text())


def test_time_limit_ends_the_whole_tree(place: Place) -> None:
    started = time.monotonic()
    outcome, _ = place.run(*wild(place), timeout_seconds=1.0, grace_seconds=GRACE_SECONDS)
    took = time.monotonic() - started
    assert complete(place), "the tree must have been there"
    assert outcome.outcome is Outcome.TIMED_OUT
    assert outcome.kill_confirmed
    assert outcome.exit_code is None
    assert 1.0 + GRACE_SECONDS <= took < 1.0 + GRACE_SECONDS + 0.7
    assert living(place) == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (StopReason.CANCELLED, Outcome.CANCELLED),
        (StopReason.LEASE_LOST, Outcome.CANCELLED),
        (StopReason.TIMEOUT, Outcome.TIMED_OUT),
    ],
)
def test_stop_ends_the_whole_tree(place: Place, reason: StopReason, expected: Outcome) -> None:
    async def scenario() -> None:
        io = IO()
        task = asyncio.create_task(place.execute(io, *wild(place), grace_seconds=GRACE_SECONDS))
        await eventually(lambda: complete(place))
        started = time.monotonic()
        io.stop.set(reason)
        outcome = await task
        assert outcome.outcome is expected
        assert outcome.kill_confirmed
        assert time.monotonic() - started < GRACE_SECONDS + 0.7
        assert living(place) == []

    asyncio.run(scenario())


def test_cancelling_the_call_ends_the_whole_tree_before_it_returns(place: Place) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), *wild(place), grace_seconds=GRACE_SECONDS))
        await eventually(lambda: complete(place))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert living(place) == []

    asyncio.run(scenario())


def test_a_tree_that_obeys_ends_without_waiting_for_the_grace(place: Place) -> None:
    async def scenario() -> None:
        io = IO()
        names = NAMES[1:]
        task = asyncio.create_task(place.execute(io, *wild(place, ignoring=False), grace_seconds=30.0))
        await eventually(lambda: complete(place, names))
        started = time.monotonic()
        io.stop.set()
        outcome = await task
        assert time.monotonic() - started < 0.5
        assert outcome.kill_confirmed

    asyncio.run(scenario())


def test_a_term_handler_gets_its_grace(place: Place) -> None:
    script = "trap 'sleep 0.2; echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    outcome, io = place.run("sh", "-c", script, timeout_seconds=0.3, grace_seconds=3.0)
    assert outcome.outcome is Outcome.TIMED_OUT
    assert io.stdout == b"up\ncleaned\n"


def test_a_stopped_command_is_ended(place: Place) -> None:
    outcome, _ = place.run("sh", "-c", "kill -STOP $$; sleep 60", timeout_seconds=0.2, grace_seconds=5.0)
    assert outcome.outcome is Outcome.TIMED_OUT
    assert outcome.duration is not None
    assert outcome.duration.total_seconds() < 1.5
    assert living(place) == []


def test_a_killed_monitor_means_lost_and_its_orphans_are_ended(place: Place) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), *wild(place), grace_seconds=GRACE_SECONDS))
        other = asyncio.create_task(place.execute(IO(), "sh", "-c", "sleep 1; exit 7"))
        await eventually(lambda: complete(place))
        os.kill(monitor_of(main_pid(place)), signal.SIGKILL)
        outcome = await asyncio.wait_for(task, 2.0)
        assert outcome.outcome is Outcome.LOST
        assert outcome.kill_confirmed
        assert (await other).exit_code == 7, "the other command's tree is none of its business"
        assert living(place) == []
        assert (await place.execute(IO(), "true")).exit_code == 0

    asyncio.run(scenario())


def test_a_killed_supervisor_means_lost_and_the_lease_stays_usable(place: Place) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), *wild(place), grace_seconds=GRACE_SECONDS))
        await eventually(lambda: complete(place))
        os.kill(supervision_pids(place.directory)[0], signal.SIGKILL)
        outcome = await asyncio.wait_for(task, 3.0)
        assert outcome.outcome is Outcome.LOST
        assert outcome.kill_confirmed
        assert living(place) == []
        assert (await place.execute(IO(), "sh", "-c", "exit 4")).exit_code == 4

    asyncio.run(scenario())


def test_supervisor_and_monitors_killed_together_leave_nothing_before_the_next_command(place: Place) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), *wild(place), grace_seconds=GRACE_SECONDS))
        await eventually(lambda: complete(place))
        kill_all_supervision(place)
        outcome = await asyncio.wait_for(task, 3.0)
        assert outcome.outcome is Outcome.LOST
        assert not outcome.kill_confirmed, "nobody is left who could know"
        assert living(place) != []
        assert (await place.execute(IO(), "true")).exit_code == 0
        assert living(place) == []

    asyncio.run(scenario())


def test_a_monitor_that_does_not_answer_is_given_up_in_time_and_release_still_ends_all(place: Place) -> None:
    async def scenario() -> None:
        io = IO()
        task = asyncio.create_task(place.execute(io, *wild(place), grace_seconds=GRACE_SECONDS))
        await eventually(lambda: complete(place))
        os.kill(monitor_of(main_pid(place)), signal.SIGSTOP)
        started = time.monotonic()
        io.stop.set()
        outcome = await task
        assert outcome.outcome is Outcome.LOST
        assert not outcome.kill_confirmed
        assert time.monotonic() - started < GRACE_SECONDS + 2.0

    asyncio.run(scenario())
    place.release()
    assert living(place) == []


def test_a_killed_orchestrator_takes_its_commands_along(place: Place) -> None:
    here = Path(__file__).parent
    program = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from local_driving import IO, Place
place = Place(Path({str(place.root)!r}), release_grace_seconds=0.3)
asyncio.run(place.execute(IO(), *{wild(place)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=here) as orchestrator:
        asyncio.run(eventually(lambda: complete(place), 10.0))
        orchestrator.kill()
    killed = time.monotonic()
    asyncio.run(eventually(lambda: not living(place) and not supervision_pids(place.directory), 3.0))
    assert time.monotonic() - killed < GRACE_SECONDS + 2.0


def test_release_from_another_process_ends_the_tree_and_removes_the_directory(place: Place) -> None:
    here = Path(__file__).parent
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from local_driving import Place
print(Place(Path({str(place.root)!r}), release_grace_seconds=0.3).release().state)
"""

    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), *wild(place)))
        await eventually(lambda: complete(place))
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, cwd=here, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await other.communicate()
        assert printed.strip() == b"gone"
        assert living(place) == []
        assert not place.directory.exists()
        outcome = await task
        assert outcome.outcome is Outcome.CANCELLED
        assert outcome.kill_confirmed

    asyncio.run(scenario())


def test_release_shortens_a_long_grace_that_has_begun_and_leaves_no_monitor(place: Place) -> None:
    async def scenario() -> None:
        other = Place(place.root, release_grace_seconds=0.3)
        script = "trap '' TERM; while :; do sleep 1; done"
        task = asyncio.create_task(place.execute(IO(), "sh", "-c", script, timeout_seconds=0.2, grace_seconds=20.0))
        await asyncio.sleep(0.4)
        started = time.monotonic()
        receipt = await asyncio.to_thread(other.release, Disposition.KEEP)
        assert time.monotonic() - started < 1.5
        assert receipt.state is ResourceState.STOPPED
        assert (await task).outcome is Outcome.TIMED_OUT
        await eventually(lambda: not [pid for pid in supervision_pids(place.directory) if not zombie(pid)])

    asyncio.run(scenario())


def zombie(pid: int) -> bool:
    return " Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_command_that_comes_while_the_supervisor_is_ending_gets_another_one(place: Place) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), *wild(place)))
        await eventually(lambda: complete(place))
        ticks = asyncio.create_task(longest_pause())
        os.kill(supervision_pids(place.directory)[0], signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert (await place.execute(IO(), "sh", "-c", "exit 6")).exit_code == 6
        assert (await task).outcome is Outcome.CANCELLED
        ticks.cancel()
        assert await ticks < 0.2, "the event loop was held"

    asyncio.run(scenario())


async def longest_pause() -> float:
    longest, last = 0.0, time.monotonic()
    try:
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
    except asyncio.CancelledError:
        return longest


def kill_all_supervision(place: Place) -> None:
    pids = supervision_pids(place.directory)
    # Stopped first, so that none sees another one die.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def test_release_ends_what_lost_its_supervisor_and_its_monitor(place: Place) -> None:
    place.run("sh", "-c", "setsid sleep 60 > /dev/null 2>&1 &")
    kill_all_supervision(place)
    assert living(place) != []
    assert Place(place.root).release().state is ResourceState.GONE
    assert living(place) == []


def test_release_ends_a_supervisor_that_it_cannot_identify(place: Place) -> None:
    place.run("sh", "-c", "sleep 60 > /dev/null 2>&1 & for f in $SOJOURN_RESOURCE_DIR/supervisors/*; do : > $f; done")
    assert Place(place.root, release_grace_seconds=0.1).release().state is ResourceState.GONE
    assert living(place) == []
    assert [pid for pid in supervision_pids(place.directory) if not zombie(pid)] == []


def test_release_does_not_wait_for_what_obeys(place: Place) -> None:
    place.run("sh", "-c", "sleep 60 & setsid sleep 61 & exit 0")
    assert len(living(place)) == 2
    started = time.monotonic()
    place.release()
    assert time.monotonic() - started < 0.25
    assert living(place) == []


def test_a_fork_bomb_ends(place: Place) -> None:
    bomb = "import os, time\nfor _ in range(4):\n    os.fork()\nwhile True:\n    time.sleep(0.01)\n    os.fork() or os._exit(0)"
    outcome, _ = place.run(sys.executable, "-I", "-S", "-c", bomb, timeout_seconds=0.4, grace_seconds=1.0)
    assert outcome.outcome is Outcome.TIMED_OUT
    assert outcome.kill_confirmed
    assert living(place) == []


def test_a_raising_stdin_ends_the_tree_and_surfaces(place: Place) -> None:
    async def scenario() -> None:
        async def broken():  # type: ignore[no-untyped-def]
            yield b"some"
            await eventually(lambda: complete(place))
            raise RuntimeError("the source broke")

        with pytest.raises(InvalidArgument, match="RuntimeError"):
            await place.execute(IO(broken()), *wild(place), grace_seconds=GRACE_SECONDS)
        assert living(place) == []

    asyncio.run(scenario())


def test_a_raising_write_ends_the_tree_and_surfaces(place: Place) -> None:
    class Broken(IO):
        async def write(self, stream: str, data: bytes) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await place.execute(Broken(), "sh", "-c", "echo x; sleep 60")
        assert living(place) == []

    asyncio.run(scenario())


def test_stop_and_time_limit_work_while_the_reader_is_stuck(place: Place) -> None:
    class Stuck(IO):
        async def write(self, stream: str, data: bytes) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        started = time.monotonic()
        outcome = await place.execute(Stuck(), "yes", timeout_seconds=0.3, grace_seconds=0.2)
        assert outcome.outcome is Outcome.TIMED_OUT
        assert not outcome.output_complete
        io = Stuck()
        task = asyncio.create_task(place.execute(io, "sh", "-c", "echo x; exit 3"))
        await asyncio.sleep(0.3)
        io.stop.set()
        outcome = await task
        assert outcome.exit_code == 3, "it had ended by itself"
        assert not outcome.output_complete
        assert time.monotonic() - started < 3

    asyncio.run(scenario())
