"""Execute through the orchestrator: what a driver's failures come to, and that nothing is a success that was none (26)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.errors import CommandFailed, Effect, EnvironmentRunError, ErrorCode, Gone, LeaseLost, SojournError
from sojourn.hooks import hookimpl
from sojourn.models import CommandOutcome, ExecuteRequest, Outcome
from sojourn.testing import FakeDriver, Fault

NOT_RUN = {
    "InvalidConfig": False,
    "InvalidArgument": False,
    "Unsupported": False,
    "PermissionDenied": False,
    "HostKeyMismatch": False,
    "Conflict": False,
    "Refused": False,
    "Busy": True,
    "Unavailable": True,
    "ResourceExhausted": True,
}
UNKNOWN = [
    "OutcomeUnknown",
    "DriverBug",
    "RuntimeError",
    "MemoryError",
    "SystemExit",
    "CancelledError",
    "BaseException",
]


def raising(error: str, **more: Any) -> Fault:
    return Fault(hook="execute", action="raise", error=error, message="the inner message", **more)


@pytest.mark.parametrize("error", NOT_RUN)
async def test_a_command_that_could_not_be_run_is_an_error_and_the_lease_stays(lab: Any, error: str) -> None:
    """(behaviour 26; table of driver errors: execute) one call, never retried by the core."""
    driver = lab.chaos(raising(error, calls=(1,)))
    async with lab.session(driver) as (_, session):
        with pytest.raises(EnvironmentRunError, match="the inner message") as failure:
            await session.execute(["true"])
        assert failure.value.code is ErrorCode.EXECUTION_FAILED
        assert (failure.value.effect, failure.value.retryable) == (Effect.NONE, NOT_RUN[error])
        assert driver.count("execute") == 1
        assert lab.lease()["status"] == "active"
        assert (await session.execute(["true"])).ok
    assert lab.lease()["status"] == "released"


@pytest.mark.parametrize("error", UNKNOWN)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_command_of_unknown_outcome_is_lost_and_never_run_again(lab: Any, error: str, when: Any) -> None:
    """(behaviour 26; table of driver errors: OutcomeUnknown, DriverBug, anything else)"""
    driver = lab.chaos(raising(error, calls=(1,), when=when))
    async with lab.session(driver) as (_, session):
        result = await session.execute(["true"])
        assert (result.outcome, result.exit_code, result.output_complete) == (Outcome.LOST, None, False)
        assert not result.ok
        with pytest.raises(CommandFailed):
            result.check()
        assert driver.count("execute") == 1
    assert lab.lease()["status"] == "failed", "a place that nobody can vouch for did not end well"


async def test_a_place_that_is_gone_fails_the_command_and_the_lease(lab: Any) -> None:
    """(behaviour 26; table of driver errors: Gone at execute) unhealthy, released as failed."""
    async with lab.session() as (_, session):
        lab.world.remove(session.lease.resource_id)
        with pytest.raises(EnvironmentRunError) as failure:
            await session.execute(["true"])
        assert isinstance(failure.value.__cause__, Gone)
        assert failure.value.effect is Effect.DONE
    row = lab.lease()
    assert (row["status"], row["outcome"]) == ("failed", "failed")
    assert "does not exist" in row["failure_reason"]


@pytest.mark.parametrize("garbage", ["none", "wrong_type", "negative_exit_code", "no_exit_code"])
async def test_an_impossible_outcome_is_lost_and_never_a_success(lab: Any, garbage: Any) -> None:
    """(behaviour 26)"""
    driver = lab.chaos(Fault(hook="execute", action="garbage", garbage=garbage))
    async with lab.session(driver) as (_, session):
        result = await session.execute(["true"])
    assert (result.outcome, result.exit_code, result.ok) == (Outcome.LOST, None, False)
    assert "execute returned" in (result.detail or "")


@pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.LOST])
async def test_an_exit_code_where_there_can_be_none_is_lost(lab: Any, outcome: Outcome) -> None:
    """(behaviour 26)"""

    class Lying(FakeDriver):
        @hookimpl
        async def execute(self, request: ExecuteRequest, io: Any) -> CommandOutcome:
            return CommandOutcome(outcome=outcome, exit_code=0)

    async with lab.session(Lying(world=lab.world)) as (_, session):
        result = await session.execute(["true"])
    assert (result.outcome, result.exit_code) == (Outcome.LOST, None)


async def test_what_a_command_did_is_in_the_result(lab: Any) -> None:
    """(behaviour 26) streams apart and byte-exact, exit code, duration, an id of its own."""
    async with lab.session() as (_, session):
        result = await session.execute(["say", "out\n", "err \udcff"])
        assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err \xff", 0)
        assert result.check() is result
        assert result.started_at.tzinfo is not None
        assert result.duration.total_seconds() >= 0
        assert result.output_complete
        assert (await session.execute(["exit", "3"])).exit_code == 3
        killed = await session.execute(["kill", "SIGSEGV"])
        assert (killed.outcome, killed.exit_code, killed.signal) == (Outcome.SIGNALED, 139, "SIGSEGV")
        assert (await session.execute(["no-such-program"])).exit_code == 127
        assert (await session.execute(["not-executable"])).exit_code == 126
        ids = {call.exec_id for call in lab.driver.calls if call.hook == "execute"}
        assert len(ids) == 5


async def test_output_over_the_limit_keeps_its_halves_and_counts_the_rest(lab: Any) -> None:
    """(behaviour 26) the command runs on."""
    async with lab.session() as (_, session):
        result = await session.execute(["flood", "1000000"], output_limit_bytes=12)
    assert result.ok
    assert result.stdout == b"first\n" + b"\0last\n"
    assert result.stdout_dropped_bytes == 1000000 - 1
    assert result.output_complete


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "argv is empty"),
        ([""], "argv is empty"),
        ("true", "argv is one string"),
        (["say", "a\0b"], "NUL"),
        (["say", 1], "is int"),
    ],
)
async def test_an_argv_that_nobody_can_run_is_refused_before_the_driver(lab: Any, argv: Any, message: str) -> None:
    """(behaviour 26)"""
    async with lab.session() as (_, session):
        with pytest.raises(EnvironmentRunError, match=message) as failure:
            await session.execute(argv)
        assert failure.value.code is ErrorCode.EXECUTION_FAILED
    assert lab.driver.count("execute") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": {"SOJOURN_RESOURCE_ID": "x"}}, "reserved"),
        ({"env": {"not a name": "x"}}, "does not match"),
        ({"env": {"A": "secret\0value"}}, "holds a NUL"),
        ({"timeout_seconds": 0}, "must be above 0"),
        ({"timeout_seconds": float("nan")}, "must be above 0"),
        ({"cwd": "/no/such/folder"}, "does not exist"),
        ({"user": "nobody-here"}, "no user"),
    ],
)
async def test_what_cannot_be_done_as_asked_is_an_error(lab: Any, options: Any, message: str) -> None:
    """(behaviour 26) and the value of a variable is not repeated."""
    async with lab.session() as (_, session):
        with pytest.raises(EnvironmentRunError, match=message) as failure:
            await session.execute(["true"], **options)
        assert failure.value.code is ErrorCode.EXECUTION_FAILED
        assert failure.value.effect is Effect.NONE
        assert "secret" not in str(failure.value)


async def test_a_relative_cwd_is_below_the_root(lab: Any, tmp_path: Any) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    async with lab.session(workspace=tmp_path / "tree") as (_, session):
        assert (await session.execute(["pwd"])).stdout.decode().strip() == str(tmp_path / "tree")
        assert (await session.execute(["pwd"], cwd="inner")).stdout.decode().strip() == str(tmp_path / "tree" / "inner")
        assert (await session.execute(["pwd"], cwd="/tmp")).stdout == b"/tmp\n"


@pytest.mark.parametrize("stdin", [b"\x00\xff" * 100_000, "text \u20ac"])
async def test_stdin_is_fed_whole_and_then_closed(lab: Any, stdin: Any) -> None:
    async with lab.session() as (_, session):
        result = await session.execute(["cat"], stdin=stdin)
    assert result.stdout == (stdin if isinstance(stdin, bytes) else stdin.encode())


async def test_stdin_may_be_a_stream(lab: Any) -> None:
    async def pieces() -> Any:
        for piece in (b"one ", b"two"):
            yield piece

    async with lab.session() as (_, session):
        assert (await session.execute(["cat"], stdin=pieces())).stdout == b"one two"


# -- stopped ----------------------------------------------------------------------------------------------------------


async def test_a_time_limit_ends_the_whole_tree(lab: Any) -> None:
    """(behaviour 26)"""
    async with lab.session() as (_, session):
        result = await session.execute(["tree"], timeout_seconds=0.2, grace_seconds=0.1)
        assert (result.outcome, result.exit_code, result.kill_confirmed) == (Outcome.TIMED_OUT, None, True)
        assert lab.world.processes() == []
        assert (await session.execute(["true"])).ok


async def test_cancelling_the_caller_ends_the_tree_first(lab: Any, until: Any) -> None:
    """(behaviour 26) CancelledError comes only when the tree is gone."""
    async with lab.session() as (_, session):
        task = asyncio.create_task(session.execute(["tree"]))
        await until(lambda: len(lab.world.processes()) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lab.world.processes() == []
        assert (await session.execute(["true"])).ok
    assert lab.lease()["status"] == "released"


async def test_a_caller_that_is_cancelled_twice_still_waits_for_the_tree(lab: Any, until: Any) -> None:
    """(behaviour 26)"""
    async with lab.session() as (_, session):
        task = asyncio.create_task(session.execute(["tree"], grace_seconds=0.3))
        await until(lambda: len(lab.world.processes()) == 3)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lab.world.processes() == []


@pytest.mark.parametrize("how", ["cancelled", "time limit"])
@pytest.mark.parametrize("action", ["hang", "hang_ignoring_cancel"])
async def test_a_driver_that_does_not_obey_the_stop_is_given_up(
    lab: Any, monkeypatch: Any, how: str, action: Any
) -> None:
    """(behaviour 26) later than its grace period and the slack: lost, and the lease does not end well."""
    monkeypatch.setattr("sojourn.execution.STOP_SLACK_SECONDS", 0.1)
    monkeypatch.setattr("sojourn.execution.BACKSTOP_SECONDS", 0.1)
    driver = lab.chaos(Fault(hook="execute", action=action, calls=(1,)))
    async with lab.session(driver) as (_, session), asyncio.timeout(10):
        if how == "cancelled":
            task = asyncio.create_task(session.execute(["true"], grace_seconds=0.1))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            result = await session.execute(["true"], timeout_seconds=0.1, grace_seconds=0.1)
            assert (result.outcome, result.exit_code) == (Outcome.LOST, None)
        assert (await session.execute(["true"])).ok, "the others are still served"
    assert lab.lease()["status"] == "failed"


async def test_a_driver_that_ends_late_but_in_time_is_not_lost(lab: Any, until: Any) -> None:
    """(behaviour 26) a polite program may use its grace period."""
    async with lab.session() as (_, session):
        task = asyncio.create_task(session.execute(["polite"], grace_seconds=5))
        await until(lambda: len(lab.world.processes()) == 1)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lab.world.processes() == []


async def test_a_background_child_neither_holds_the_call_nor_reaches_another_result(lab: Any) -> None:
    """(behaviour 26)"""
    async with lab.session() as (_, session), asyncio.timeout(5):
        first = await session.execute(["background", "0.1", "late", "4"])
        second = await session.execute(["sleep", "0.3"])
    assert (first.stdout, first.exit_code) == (b"early\n", 4)
    assert second.stdout == b""


async def test_a_session_that_is_over_runs_nothing(lab: Any) -> None:
    async with lab.session() as (_, session):
        pass
    with pytest.raises(SojournError, match=r"closed|given back"):
        await session.execute(["true"])
    assert lab.driver.count("execute") == 0


async def test_a_lease_that_another_orchestrator_ended_is_lost(lab: Any) -> None:
    """(behaviour 26) its holder learns of it at the latest when it gives the lease back."""
    async with lab.session() as (_, session), lab.open() as other:
        await other.leases.release(session.lease.id)
        with pytest.raises(EnvironmentRunError):
            await session.execute(["true"])
    assert session.release_report is not None
    assert [type(error.error) for error in session.release_report.errors] == [LeaseLost]
    assert lab.driver.count("release") == 1
