"""An orchestrator is killed at every point of a run; one sweep on the same host puts everything right."""

from __future__ import annotations

import itertools

import pytest
from fault_driving import FILES, Scene

import sojourn_local

DRIVER_POINTS = [
    "before:acquire",  # the intent is committed, the driver not called
    "driver:acquire:before",
    "driver:acquire:after",
    "after:acquire",  # the driver is done, the activation not committed
    "activity:environment.lease_acquired",
    "before:realize",
    "after:realize",
    "before:execute",
    "before:release",  # the claim is committed, the driver not called
    "driver:release:before",
    "driver:release:after",
    "after:release",  # the place is gone, the row does not say so
    "activity:environment.lease_released",
]
CODE_POINTS = [
    # The directory of the resource is half made, not yet under its name.
    "code:sojourn_local.resources._write_atomically:1:before",
    # Half of the tree is copied.
    f"code:sojourn.workspace.copying._copy_file:{FILES // 2}:after",
    # The commands have ended, their directory is not removed; then: half removed.
    "code:sojourn_local.resources.remove_tree:1:before",
    "code:sojourn_local.removal._is_directory:2:after",
]
WORKTREE_POINTS = [
    "code:sojourn.workspace.worktrees.make_worktree:1:before",  # recorded, not made
    "code:sojourn.workspace.worktrees.make_worktree:1:after",  # made, nothing in it
    "code:sojourn.workspace.worktrees._save:1:before",  # the place is gone, the work in the worktree not saved
    "code:sojourn.workspace.worktrees._save:1:after",  # saved, the worktree not removed
    "code:sojourn.workspace.worktrees._remove:1:after",
]


def test_the_local_driver_says_that_nothing_of_it_lands_late() -> None:
    """That is why one sweep is enough: a dead process's acquire can have no effect any more."""
    assert sojourn_local.LocalDriver().driver_info().late_effects is False


@pytest.mark.parametrize("point", DRIVER_POINTS + CODE_POINTS)
def test_killed_at_a_point_of_a_run_with_a_copy(scene: Scene, point: str) -> None:
    scene.run(point, mode="copy", commands=[scene.short("one"), scene.short("two")])
    scene.reap()
    assert scene.leftovers() == []
    assert scene.branches() == []


@pytest.mark.parametrize("point", ["before:acquire", "after:realize", "before:release", *WORKTREE_POINTS])
def test_killed_at_a_point_of_a_run_with_a_worktree(scene: Scene, point: str) -> None:
    scene.run(point, mode="git_worktree", commands=[scene.short("one")])
    scene.reap()
    assert scene.leftovers() == []
    if scene.lines("ledger"):
        assert scene.saved("one")
    else:
        assert scene.branches() == [], "a branch without work on it is left"


@pytest.mark.parametrize(("mode", "when"), [("copy", "before"), ("git_worktree", "after")])
def test_killed_around_every_transaction(scene: Scene, mode: str, when: str) -> None:
    """The points are counted while they are met, so that a new transaction is a new point."""
    for number in itertools.count(1):
        victim = scene.start(f"commit:{number}:{when}", mode=mode, commands=[scene.short(f"round-{number}")])
        killed = victim.wait(30) != 0
        scene.reap()
        assert scene.leftovers() == [], f"killed {when} transaction {number} of {scene.lines('commits')}"
        if not killed:
            assert number > 7
            return


@pytest.mark.parametrize("mode", ["copy", "in_place", "git_worktree"])
def test_killed_while_it_provisions(scene: Scene, mode: str) -> None:
    """The provision command and its child are ended; it did not run again."""
    ledger, marker = scene.folder / "ledger", scene.marker
    started = scene.folder / "started" / "provision"
    provision = f"echo provision >> {ledger}; sh -c 'while :; do sleep 0.2; done' {marker} & : > {started}; wait"
    victim = scene.start(mode=mode, provision=provision, commands=[scene.short("never")])
    scene.kill_while_running(victim, "provision")
    scene.reap()
    assert scene.leftovers() == []
    assert scene.lines("ledger") == ["provision"]


@pytest.mark.parametrize("mode", ["copy", "git_worktree"])
def test_killed_while_a_command_runs(scene: Scene, mode: str) -> None:
    victim = scene.start(mode=mode, commands=[scene.plain("one")])
    scene.kill_while_running(victim, "one")
    scene.reap()
    assert scene.leftovers() == []
    assert scene.lines("ledger") == ["one"]
    if mode == "git_worktree":
        assert scene.saved("one")


def test_killed_while_a_command_runs_that_does_not_want_to_end(scene: Scene) -> None:
    """Out of its session, forked twice, deaf to TERM, without its environment: gone all the same."""
    victim = scene.start(commands=[scene.stubborn("one")])
    scene.kill_while_running(victim, "one")
    scene.reap()
    assert scene.leftovers() == []
    assert scene.lines("ledger") == ["one"]


def test_killed_while_many_commands_run(scene: Scene) -> None:
    names = [f"command-{number}" for number in range(16)]
    commands = [scene.stubborn(name) if number % 4 == 0 else scene.plain(name) for number, name in enumerate(names)]
    victim = scene.start(commands=commands)
    scene.kill_while_running(victim, *names)
    scene.reap()
    assert scene.leftovers() == []
    assert sorted(scene.lines("ledger")) == sorted(names)


@pytest.mark.parametrize(
    "point",
    [
        "before:release",
        "after:release",
        "code:sojourn_local.resources.remove_tree:1:before",
        "code:sojourn.store.holders.remove:1:before",
    ],
)
def test_killed_while_it_closes(scene: Scene, point: str) -> None:
    """The lease is given back by the closing orchestrator, not by a session."""
    scene.run(point, action="leave")
    scene.reap()
    assert scene.leftovers() == []


def test_killed_after_everything_was_given_back(scene: Scene) -> None:
    """There is nothing to put right, and the dead holder is forgotten."""
    scene.run("code:sojourn.store.holders.remove:1:before", mode="copy", commands=[scene.short("one")])
    assert scene.reap().items == ()
    assert scene.leftovers() == []
