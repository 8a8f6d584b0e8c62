"""The blocking twin: the same steps from synchronous code, interrupts included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sojourn import blocking
from sojourn.errors import EnvironmentRunError, ErrorCode, WrongContext


@pytest.fixture
def orchestrator(lab: Any) -> Any:
    with blocking.open_orchestrator(lab.path, drivers={"fake": lab.driver}) as opened:
        opened.call(opened.inner.environments.create, "build", "fake")
        yield opened


def test_a_session_runs_commands_and_is_released(lab: Any, orchestrator: Any) -> None:
    with orchestrator.session(environment="build") as session:
        assert session.execute(["say", "hello"]).check().stdout == b"hello"
        assert session.inner.lease.status == "active"
        before = session.inner.lease.expires_at
        assert (session.extend(60) - before).total_seconds() == 60
    assert lab.lease()["status"] == "released"
    assert session.inner.release_report.released
    assert lab.resources() == []


def test_the_single_steps_work_too(lab: Any, orchestrator: Any) -> None:
    acquired = orchestrator.acquire_for_run(lab.run(), "build")
    done = orchestrator.realize_for_run(acquired)
    assert done.target.cwd == "/work"
    report = orchestrator.release_for_run(lab.run())
    assert [lease.id for lease in report.released] == [acquired.lease.id]
    assert [event.action for event in orchestrator.activity()] == [
        "environment.lease_acquired",
        "environment.lease_released",
    ]
    assert orchestrator.reap().items == ()
    assert orchestrator.resolve_environment("build").level == "requested"


def test_errors_come_through_as_they_are(lab: Any, orchestrator: Any) -> None:
    with pytest.raises(EnvironmentRunError) as failure:
        orchestrator.resolve_environment("nowhere")
    assert failure.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND


def test_a_block_left_by_an_exception_failed(lab: Any, orchestrator: Any) -> None:
    with pytest.raises(ValueError, match="mine"), orchestrator.session(environment="build"):
        raise ValueError("mine")
    assert (lab.lease()["status"], lab.lease()["failure_reason"]) == ("failed", "ValueError")


def test_failed_by_hand(lab: Any, orchestrator: Any) -> None:
    with orchestrator.session(environment="build") as session:
        session.fail("red")
    assert (lab.lease()["status"], lab.lease()["failure_reason"]) == ("failed", "red")


def test_several_threads_may_use_it(lab: Any, orchestrator: Any) -> None:
    def one(number: int) -> bytes:
        with orchestrator.session(environment="build", run=lab.run(f"run-{number}")) as session:
            return session.execute(["say", str(number)]).stdout

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(8))) == [str(number).encode() for number in range(8)]
    assert {row["status"] for row in lab.leases()} == {"released"}


def test_an_interrupt_ends_the_command_and_gives_the_lease_back(lab: Any, orchestrator: Any) -> None:
    """Ctrl-C in the main thread: the tree is ended first, then KeyboardInterrupt goes on."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), orchestrator.session(environment="build") as session:  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            session.execute(["tree"], grace_seconds=0.2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (lab.lease()["status"], lab.lease()["failure_reason"]) == ("expired", "cancelled")
    assert lab.world.processes() == []
    assert lab.resources() == []


def test_leaving_the_block_gives_back_what_is_held_and_ends_the_thread(lab: Any) -> None:
    with blocking.open_orchestrator(lab.path, drivers={"fake": lab.driver}) as opened:
        opened.call(opened.inner.environments.create, "build", "fake")
        opened.acquire_for_run(lab.run(), "build")
    assert lab.lease()["status"] == "expired"
    assert not [thread for thread in threading.enumerate() if thread.name == "sojourn-portal"]


def test_after_its_block_it_says_that_it_is_closed(lab: Any) -> None:
    with blocking.open_orchestrator(lab.path, drivers={"fake": lab.driver}) as opened:
        pass
    with pytest.raises(WrongContext, match="closed"):
        opened.activity()


def test_a_store_that_cannot_be_opened_leaves_no_thread(lab: Any) -> None:
    lab.path.write_bytes(b"not a database at all, but long enough to be read as one " * 20)
    with pytest.raises(Exception, match="not a database"), blocking.open_orchestrator(lab.path):
        pytest.fail("it was opened")
    assert not [thread for thread in threading.enumerate() if thread.name == "sojourn-portal"]


def test_after_a_fork_it_says_so_instead_of_waiting_for_ever(lab: Any) -> None:
    program = """
        import os, sys
        from sojourn import blocking
        from sojourn.errors import WrongContext
        from sojourn.testing import FakeDriver

        with blocking.open_orchestrator(sys.argv[1], drivers={"fake": FakeDriver()}) as orchestrator:
            if (child := os.fork()) == 0:
                try:
                    orchestrator.activity()
                except WrongContext:
                    os._exit(7)
                os._exit(9)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            orchestrator.activity()
        print("done")
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), os.fspath(lab.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
