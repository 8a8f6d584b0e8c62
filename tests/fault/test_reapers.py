"""Sweeps that are killed, sweeps that race, and sweeps that must keep their hands off."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from fault_driving import Scene, git, until

from sojourn import LeaseStatus, Orchestrator, RunContext, SweepsOff

ROUNDS = int(os.environ.get("SOJOURN_FAULT_ROUNDS", "15"))
SEED = int(os.environ.get("SOJOURN_FAULT_SEED", "20240117"))


def crash(scene: Scene, name: str = "one", mode: str = "copy") -> None:
    """Leave a lease with a running command whose orchestrator is dead."""
    victim = scene.start(mode=mode, commands=[scene.plain(name)])
    scene.kill_while_running(victim, name)


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_killed_at_random_times(scene: Scene) -> None:
    """``SOJOURN_FAULT_ROUNDS`` and ``SOJOURN_FAULT_SEED`` say how often and where; a failure names the round."""
    rng = random.Random(SEED)
    for number in range(ROUNDS):
        commands = [scene.short(f"short-{number}"), scene.short(f"other-{number}")]
        victim = scene.start(action="repeat", seed=rng.getrandbits(32), commands=commands)
        delay = rng.choice((rng.uniform(0.0, 0.3), rng.uniform(0.0, 1.5)))
        assert victim.wait(delay) is None, (scene.folder / "log").read_text(errors="replace")[-3000:]
        victim.kill()
        report = scene.reap()
        assert not report.pending, f"round {number}, seed {SEED}, killed after {delay:.3f} s: {report.pending}"
        assert scene.leftovers() == [], f"round {number}, seed {SEED}, killed after {delay:.3f} s"
    assert scene.lines("results"), "no command ever ran to its end"


@pytest.mark.parametrize("mode", ["copy", "git_worktree"])
def test_a_sweep_that_is_killed_three_times_converges(scene: Scene, mode: str) -> None:
    crash(scene, mode=mode)
    last = "code:sojourn.workspace.worktrees._save:1:after" if mode == "git_worktree" else "driver:release:after"
    for point in ("before:release", "code:sojourn_local.resources.remove_tree:1:before", last):
        scene.run(point, action="reap")
    report = scene.reap()
    assert [item.result for item in report.items] == ["gone"]
    assert scene.leftovers() == []
    if mode == "git_worktree":
        assert scene.saved("one")


@pytest.mark.parametrize("number", range(1, 6))
def test_a_sweep_that_is_killed_around_a_transaction_converges(scene: Scene, number: int) -> None:
    crash(scene)
    scene.run(f"commit:{number}:after", action="reap")
    scene.reap()
    assert scene.leftovers() == []


def test_what_a_killed_sweep_was_about_to_do_is_planned(scene: Scene) -> None:
    """A dry run says the same as the sweep that follows it does."""
    crash(scene)
    scene.run("before:release", action="reap")
    planned = scene.reap(dry_run=True)
    done = scene.reap()
    assert [item.lease_id for item in planned.items] == [item.lease_id for item in done.items]
    assert len(done.items) == 1
    assert scene.leftovers() == []


def test_two_sweeps_at_once_never_act_on_one_lease_both(scene: Scene) -> None:
    names = [f"crashed-{number}" for number in range(6)]
    for name in names:
        crash(scene, name)
    before = len(scene.lines("calls"))
    sweeps = [scene.start(action="reap") for _ in range(3)]
    assert [sweep.wait(30) for sweep in sweeps] == [0, 0, 0]
    released = Counter(line.split()[2] for line in scene.lines("calls")[before:] if line.startswith("begin release"))
    assert sorted(released) == sorted(lease.id for lease in scene.leases())
    assert set(released.values()) == {1}, "a lease was released by two sweeps"
    assert scene.leftovers() == []


def test_the_leases_of_a_living_orchestrator_are_left_alone(scene: Scene) -> None:
    victim = scene.start(commands=[scene.plain("one")])
    scene.running("one")
    assert scene.reap().items == ()
    assert scene.reap(dry_run=True).items == ()
    assert [lease.status for lease in scene.leases()] == [LeaseStatus.ACTIVE]
    assert any("is alive" in line for line in scene.leftovers()), "its command was ended"
    victim.kill()
    scene.reap()
    assert scene.leftovers() == []


def test_a_stopped_orchestrator_is_not_a_dead_one(scene: Scene) -> None:
    victim = scene.start(commands=[scene.plain("one")])
    scene.running("one")
    os.kill(victim.pid, signal.SIGSTOP)
    assert scene.reap().items == ()
    victim.kill()
    scene.reap()
    assert scene.leftovers() == []


def test_a_pid_that_belongs_to_another_process_now_is_a_dead_holder(scene: Scene) -> None:
    """That process is not touched."""
    crash(scene)
    foreign = subprocess.Popen(["sleep", "1000"])
    try:
        scene.sql("UPDATE holders SET pid = ?", foreign.pid)
        scene.reap()
        assert scene.leftovers() == []
        assert foreign.poll() is None, "the foreign process was signalled"
    finally:
        foreign.kill()
        foreign.wait()


def test_a_holder_on_another_host_is_not_judged(scene: Scene) -> None:
    crash(scene)
    (lease,) = scene.leases()
    with_host = scene.value("SELECT host_id FROM holders")
    scene.sql("UPDATE holders SET host_id = 'another'")
    assert scene.reap().items == ()
    (after,) = scene.leases()
    assert (after.status, after.epoch) == (LeaseStatus.ACTIVE, lease.epoch)
    assert (scene.root / lease.resource_id).is_dir()
    scene.sql("UPDATE holders SET host_id = ?", with_host)
    scene.reap()
    assert scene.leftovers() == []


def test_a_holder_of_an_earlier_boot_is_dead(scene: Scene) -> None:
    """Also when its pid and start time fit a process of today."""
    crash(scene)
    scene.sql("UPDATE holders SET boot_id = 'earlier', pid = ?", os.getpid())
    scene.reap()
    assert scene.leftovers() == []


def test_a_copy_of_the_store_sweeps_nothing(scene: Scene) -> None:
    crash(scene)
    original, copy = scene.store, scene.folder / "copy" / "sojourn.db"
    copy.parent.mkdir(mode=0o700)
    copy.write_bytes(original.read_bytes())
    scene.store = copy
    with pytest.raises(SweepsOff, match="sojourn db adopt"):
        scene.reap()
    scene.store = original
    scene.reap()
    assert scene.leftovers() == []


# -- signals that are not KILL ----------------------------------------------------------------------------------------


def test_interrupted_by_the_terminal(scene: Scene) -> None:
    """`asyncio.run` turns SIGINT into a cancellation: the tree is ended and the lease given back before the process ends."""
    victim = scene.start(commands=[scene.stubborn("one")])
    scene.running("one")
    victim.kill(signal.SIGINT)
    assert [(lease.status, lease.failure_reason) for lease in scene.leases()] == [("expired", "cancelled")]
    assert scene.leftovers() == []


def test_terminated(scene: Scene) -> None:
    """The library installs no handler: SIGTERM ends the process at once, and the next sweep puts right what it left."""
    victim = scene.start(commands=[scene.stubborn("one")])
    scene.running("one")
    victim.kill(signal.SIGTERM)
    assert victim.wait(0) == -signal.SIGTERM
    scene.reap()
    assert scene.leftovers() == []


# -- git outlives us --------------------------------------------------------------------------------------------------


def test_killed_while_git_makes_the_worktree(scene: Scene) -> None:
    """The git process lives on for a moment; what it makes after the sweep would be nobody's."""
    scene.slow_git("worktree add", seconds=1.5)
    victim = scene.start(mode="git_worktree", commands=[])
    scene.running("git")
    victim.kill()
    scene.reap()
    until(scene.git_is_done, "git has ended")
    assert scene.leftovers() == []


def test_killed_while_git_saves_the_work(scene: Scene) -> None:
    """A sweep does not stumble over the git process of the one before."""
    crash(scene, mode="git_worktree")
    scene.slow_git("add --all", seconds=1.5)
    sweep = scene.start(action="reap")
    scene.running("git")
    sweep.kill()
    scene.reap()
    until(scene.git_is_done, "git has ended")
    assert scene.leftovers() == []
    assert scene.saved("one")


# -- the store itself -------------------------------------------------------------------------------------------------


def test_killed_while_the_store_is_made(scene: Scene) -> None:
    """Whatever is there of the file, the next process opens it."""

    async def use() -> None:
        async with Orchestrator.open(scene.store) as orchestrator:
            run = RunContext(tenant="default", run_id=None, agent_id=None)
            async with orchestrator.session(run=run, transfer="copy") as session:
                assert (await session.execute(["true"])).ok

    rng = random.Random(SEED)
    for number in range(8):
        scene.store = scene.folder / f"fresh-{number}" / "sojourn.db"
        victim = scene.start(action="reap")
        assert victim.wait(rng.uniform(0.005, 0.12)) in (None, 0)
        victim.kill()
        asyncio.run(use())
    assert git(scene.source, "worktree", "list").count("\n") == 1


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def command_line(scene: Scene) -> Iterator[subprocess.Popen[bytes]]:
    """``sojourn run``, its command running, which does not want to end."""
    options = ["--env", "here", "--workspace", str(scene.source), "--mode", "git_worktree", "--grace", "0.3"]
    command = scene.stubborn("one")
    words = [sys.executable, "-m", "sojourn", "--store", str(scene.store), "run", *options, "--", *command]
    with subprocess.Popen(words, env=scene.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            scene.running("one")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_command_line_ends_in_good_order(
    scene: Scene, command_line: subprocess.Popen[bytes], number: int, status: int
) -> None:
    """The tree is ended and the lease given back before the process ends; no sweep is needed."""
    command_line.send_signal(number)
    said = command_line.communicate(timeout=20)[1]
    assert command_line.returncode == status
    assert b"Traceback" not in said
    assert [(lease.status, lease.failure_reason) for lease in scene.leases()] == [("expired", "cancelled")]
    assert scene.leftovers() == []


def test_the_command_line_is_killed(scene: Scene, command_line: subprocess.Popen[bytes]) -> None:
    """``sojourn reap`` does the rest, at once, and says so."""
    command_line.kill()
    command_line.communicate(timeout=20)
    words = [sys.executable, "-m", "sojourn", "--store", str(scene.store), "reap"]
    done = subprocess.run(words, env=scene.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gone" in done.stdout
    assert scene.leftovers() == []
