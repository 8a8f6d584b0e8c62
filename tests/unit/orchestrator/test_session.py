"""A session: how its lease ends for each way of leaving its block, streamed commands, and what is noted on exceptions."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.session import PIPE
from sojourn.testing import Fault


def ending(lab: Any) -> tuple[str, str | None]:
    row = lab.lease()
    assert lab.resources() == []
    return row["status"], row["failure_reason"]


# -- the ways out -----------------------------------------------------------------------------------------------------


async def test_left_normally_the_lease_is_released(lab: Any) -> None:
    async with lab.session() as (_, session):
        assert session.release_report is None
        assert lab.lease()["status"] == "active"
    assert ending(lab) == ("released", None)
    assert [lease.status for lease in session.release_report.released] == ["released"]
    assert session.lost.is_set()


async def test_left_by_an_exception_the_lease_failed_and_the_text_of_a_foreign_one_is_not_stored(lab: Any) -> None:
    with pytest.raises(ValueError, match="the password is"):
        async with lab.session():
            raise ValueError("the password is hunter2-hunter2")
    assert ending(lab) == ("failed", "ValueError")
    assert "hunter2" not in lab.all_text()


async def test_left_by_one_of_our_errors_the_reason_is_its_text(lab: Any) -> None:
    with pytest.raises(EnvironmentRunError):
        async with lab.session() as (_, session):
            await session.execute([])
    status, reason = ending(lab)
    assert status == "failed"
    assert "argv is empty" in reason


async def test_failed_by_hand_the_lease_failed_though_nothing_was_raised(lab: Any) -> None:
    async with lab.session() as (_, session):
        session.fail("3 tests are red")
    assert ending(lab) == ("failed", "3 tests are red")


async def test_a_reason_by_hand_stands_above_the_exceptions(lab: Any) -> None:
    with pytest.raises(ValueError, match="x"):  # noqa: PT012 - what is raised leaves a block
        async with lab.session() as (_, session):
            session.fail("3 tests are red")
            raise ValueError("x")
    assert ending(lab) == ("failed", "3 tests are red")


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_left_by_an_interruption_the_lease_expired(lab: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        async with lab.session():
            raise error
    assert ending(lab) == ("expired", "cancelled")


async def test_left_by_cancellation_the_lease_expired(lab: Any, until: Any) -> None:
    inside = asyncio.Event()

    async def run() -> None:
        async with lab.session():
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(run())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ending(lab) == ("expired", "cancelled")


async def test_cancelled_while_it_is_realized_the_lease_expired(lab: Any, until: Any) -> None:
    driver = lab.chaos(Fault(hook="realize", action="hang"))

    async def run() -> None:
        async with lab.session(driver):
            pytest.fail("the session was realized")

    task = asyncio.create_task(run())
    await until(lambda: driver.count("realize"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ending(lab) == ("expired", "cancelled")


async def test_cancelled_during_the_release_the_release_still_ends(lab: Any, until: Any) -> None:
    driver = lab.chaos(Fault(hook="release", action="slow", seconds=0.3))

    async def run() -> None:
        async with lab.session(driver):
            pass

    task = asyncio.create_task(run())
    await until(lambda: driver.count("release"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ending(lab) == ("released", None)
    assert driver.count("release") == 1


async def test_a_realize_that_fails_gives_the_lease_back(lab: Any) -> None:
    driver = lab.chaos(Fault(hook="realize", action="raise", error="Refused", message="no room for you"))
    with pytest.raises(EnvironmentRunError, match="no room for you") as failure:
        async with lab.session(driver):
            pytest.fail("the session was realized")
    assert failure.value.code is ErrorCode.WORKSPACE_REALIZATION_FAILED
    status, reason = ending(lab)
    assert status == "failed"
    assert "no room for you" in reason


async def test_a_clean_up_that_fails_is_noted_on_the_exception_and_never_replaces_it(lab: Any) -> None:
    """(behaviour 20)"""
    driver = lab.chaos(Fault(hook="release", action="raise", error="Unavailable", message="no way out", calls=(1,)))
    with pytest.raises(ValueError, match="mine") as failure:
        async with lab.session(driver) as (_, session):
            raise ValueError("mine")
    (note,) = failure.value.__notes__
    assert "no way out" in note
    assert "sojourn reap" in note
    assert [error.lease_id for error in session.release_report.errors] == [session.lease.id]
    row = lab.lease()
    assert (row["status"], row["outcome"], row["failure_reason"]) == ("pending_cleanup", "failed", "ValueError")


async def test_a_clean_up_that_fails_without_an_exception_is_in_the_report_and_the_log(lab: Any, caplog: Any) -> None:
    driver = lab.chaos(Fault(hook="release", action="raise", error="Unavailable", message="no way out", calls=(1,)))
    async with lab.session(driver) as (_, session):
        pass
    assert "no way out" in str(session.release_report.errors[0].error)
    assert "no way out" in caplog.text


async def test_a_store_that_is_gone_at_the_end_is_noted_and_does_not_hide_the_exception(lab: Any) -> None:
    away = lab.path.with_suffix(".away")
    orchestrating = {"settings": lab.settings(release_on_close=False)}
    with pytest.raises(ValueError, match="mine") as failure:  # noqa: PT012 - what is raised leaves a block
        async with lab.session(orchestrating=orchestrating):
            lab.path.rename(away)
            raise ValueError("mine")
    away.rename(lab.path)
    assert any("removed or replaced" in note for note in failure.value.__notes__)
    assert lab.lease()["status"] == "active"
    # Its holder could not be signed off either; only the end of its process proves that nobody works there any more.
    lab.sql("UPDATE holders SET process_started = 'long ago'")
    async with lab.open() as orchestrator:
        swept = await orchestrator.reap()
        assert [item.result for item in swept.items] == ["gone"]


async def test_a_session_without_a_run_is_an_operators_test(lab: Any) -> None:
    """(behaviour 12)"""
    async with lab.session(run=None) as (_, session):
        assert (session.lease.context.run_id, session.lease.context.agent_id) == (None, None)
    event = lab.activities("environment.lease_released")[0]
    assert event["actor_type"] == "operator"


async def test_extend_moves_the_end_on(lab: Any) -> None:
    async with lab.session() as (_, session):
        before = session.lease.expires_at
        assert await session.extend(60) == before + timedelta(seconds=60)
        assert await session.extend(timedelta(hours=1)) == before + timedelta(seconds=3660)
        assert session.lease.expires_at == before + timedelta(seconds=3660)


# -- streamed commands ------------------------------------------------------------------------------------------------


async def test_output_is_read_while_the_command_runs(lab: Any) -> None:
    async with lab.session() as (_, session), session.start(["cat"], stdin=PIPE) as command:
        chunks = command.output()
        for word in (b"one", b"two"):
            await command.stdin.write(word)
            assert (await anext(chunks)).data == word
        await command.stdin.close()
        assert [chunk async for chunk in chunks] == []
        assert (await command.wait()).check().stdout == b"onetwo"
        with pytest.raises(ValueError, match="stdin is closed"):
            await command.stdin.write(b"more")


async def test_lines_come_whole_whatever_the_pieces(lab: Any) -> None:
    async def ragged(command: Any) -> int:
        for piece in (b"on", b"e\ntw", b"o\n\xffthr", b"ee"):
            await command.write("stdout", piece)
            await command.write("stderr", b"aside")
        return 0

    async with lab.session(lab.fake(ragged=ragged)) as (_, session), session.start(["ragged"]) as command:
        assert [line async for line in command.lines()] == ["one", "two", "\ufffdthree"]
        assert (await command.wait()).stderr == b"aside" * 4


async def test_leaving_the_block_ends_the_whole_tree(lab: Any, until: Any) -> None:
    async with lab.session() as (_, session):
        async with session.start(["tree"]) as command:
            await until(lambda: len(lab.world.processes()) == 3)
            assert command.exec_id
        assert lab.world.processes() == []
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012 - what is raised leaves a block
            async with session.start(["tree"]):
                await until(lambda: len(lab.world.processes()) == 3)
                raise ValueError("mine")
        assert lab.world.processes() == []


async def test_stop_ends_the_tree_and_tells_how(lab: Any, until: Any) -> None:
    async with lab.session() as (_, session), session.start(["tree"]) as command:
        await until(lambda: len(lab.world.processes()) == 3)
        result = await command.stop()
        assert (result.outcome, result.kill_confirmed) == ("cancelled", True)


async def test_a_slow_reader_holds_the_command_back_and_wait_lets_it_go(lab: Any) -> None:
    """Back-pressure: the command waits once its output is pending; memory stays flat."""
    written = 0

    async def gusher(command: Any) -> int:
        nonlocal written
        for _ in range(64):
            await command.write("stdout", bytes(64 * 1024))
            written += 64 * 1024
        return 0

    async with lab.session(lab.fake(gusher=gusher)) as (_, session), session.start(["gusher"]) as command:
        await asyncio.sleep(0.1)
        assert 256 * 1024 <= written <= 512 * 1024
        result = await command.wait()
        assert result.ok
        assert written == 64 * 64 * 1024


async def test_a_command_that_cannot_be_run_says_so_when_it_is_asked(lab: Any) -> None:
    async with lab.session() as (_, session):
        async with session.start(["true"], cwd="/no/such/folder") as command:
            with pytest.raises(EnvironmentRunError, match="does not exist"):
                await command.wait()
        async with session.start(["true"], cwd="/no/such/folder"):
            pass
        with pytest.raises(EnvironmentRunError, match="argv is empty"):
            async with session.start([]):
                pytest.fail("an empty argv was started")


async def test_commands_overlap(lab: Any) -> None:
    async with lab.session() as (_, session), asyncio.timeout(10):
        results = await asyncio.gather(*(session.execute(["sleep", "0.3"]) for _ in range(20)))
    assert all(result.ok for result in results)
