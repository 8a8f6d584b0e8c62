"""Sweeps: what crashed, what is overdue, what still waits, and what is left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sojourn.models import Actor
from sojourn.testing import Fault


def text_of(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def test_a_store_with_nothing_to_do_gives_an_empty_report(lab: Any) -> None:
    async with lab.open() as orchestrator:
        report = await orchestrator.reap()
    assert (report.items, report.dry_run, report.pending) == ((), False, ())


async def test_an_active_lease_within_its_lifetime_is_left_alone(lab: Any) -> None:
    """Also by the sweep of another orchestrator, and also when it is forced."""
    async with lab.ready() as (orchestrator, environment), lab.open() as other:
        lease = await orchestrator.acquire_lease(environment, lab.run())
        for sweeper in (orchestrator, other):
            assert (await sweeper.reap(force=True)).items == ()
        assert lab.resources() == [lease.resource_id]


async def test_a_lease_whose_lifetime_is_over_ends_as_expired(lab: Any) -> None:
    """By its own orchestrator, or by another's sweep; its commands find the lease lost."""
    async with lab.ready() as (orchestrator, environment), lab.open() as other:
        past = datetime.now(UTC) - timedelta(seconds=1)
        held = {}
        for name in ("own", "foreign"):
            lease = await orchestrator.acquire_lease(environment, lab.run(name), expires_at=past)
            held[name] = lease
            sweeper = orchestrator if name == "own" else other
            planned = await sweeper.reap(dry_run=True)
            assert [(item.lease_id, item.why, item.result) for item in planned.items] == [
                (lease.id, "its lifetime is over", "planned")
            ]
            report = await sweeper.reap()
            assert [(item.lease_id, item.result) for item in report.items] == [(lease.id, "gone")]
        assert {(row["status"], row["failure_reason"]) for row in lab.leases()} == {("expired", "lifetime")}
        assert lab.resources() == []


async def test_clean_up_is_not_tried_before_it_is_due_unless_forced(lab: Any) -> None:
    driver = lab.chaos(Fault(hook="release", action="raise", error="Unavailable", calls=(1, 2)))
    async with lab.ready(driver) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        await orchestrator.release_for_run(lab.run())
        assert (await orchestrator.reap()).items == ()
        report = await orchestrator.reap(force=True)
        assert [(item.result, "Unavailable" in (item.detail or "")) for item in report.pending] == [("pending", True)]
        assert driver.count("release") == 2


async def test_the_wait_between_attempts_grows(lab: Any) -> None:
    driver = lab.chaos(Fault(hook="release", action="raise", error="Unavailable"))
    async with lab.ready(driver, settings=lab.settings(release_on_close=False)) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
        await orchestrator.release_for_run(lab.run())
        waits = []
        for _ in range(4):
            before = datetime.now(UTC)
            await orchestrator.reap(force=True)
            (lease,) = await orchestrator.leases.list()
            waits.append((lease.next_try_at - before).total_seconds())
    assert [round(wait / 5) for wait in waits] == [1, 2, 4, 8]


async def test_one_item_that_fails_does_not_stop_the_sweep(lab: Any) -> None:
    driver = lab.chaos(Fault(hook="release", action="raise", error="Unavailable", calls=(1, 2, 3, 4)))
    async with lab.ready(driver) as (orchestrator, environment):
        for number in range(3):
            await orchestrator.acquire_lease(environment, lab.run(f"run-{number}"))
            await orchestrator.release_for_run(lab.run(f"run-{number}"))
        report = await orchestrator.reap(force=True)
        assert [item.result for item in report.items] == ["pending", "gone", "gone"]


async def test_of_two_sweepers_one_makes_the_call(lab: Any) -> None:
    import asyncio

    driver = lab.chaos(
        Fault(hook="release", action="raise", error="Unavailable", calls=(1,)),
        Fault(hook="release", action="slow", seconds=0.1),
    )
    async with lab.ready(driver) as (first, environment), lab.open(driver) as second:
        await first.acquire_lease(environment, lab.run())
        await first.release_for_run(lab.run())
        lab.sql("UPDATE leases SET next_try_at = NULL")
        reports = await asyncio.gather(first.reap(), second.reap())
        results = [item.result for report in reports for item in report.items]
        assert results.count("gone") == 1
        assert set(results) <= {"gone", "elsewhere"}
        assert driver.count("release") == 2


async def test_a_takeover_bumps_the_epoch_and_the_old_holder_finds_its_lease_lost(lab: Any) -> None:
    """A holder that was shut out must not act on what belongs to another now."""
    async with lab.ready() as (orchestrator, environment), lab.open() as other:
        lease = await orchestrator.acquire_lease(environment, lab.run())
        lab.sql("UPDATE holders SET fenced_at = beat_at WHERE id = ?", lease.holder_id)
        report = await other.reap()
        assert [(item.lease_id, item.result) for item in report.items] == [(lease.id, "gone")]
        calls = lab.driver.count("release")
        done = await orchestrator.release_for_run(lab.run())
        assert (done.released, done.errors) == ((), ())
        assert lab.driver.count("release") == calls
    assert (lab.lease()["epoch"], lab.lease()["status"]) == (2, "failed")


async def test_dead_holders_without_leases_are_forgotten(lab: Any) -> None:
    async with lab.open() as orchestrator:
        lab.sql(
            "INSERT INTO holders SELECT 'dead', host_id, boot_id, pid_namespace, pid, 'long ago', beat_at, NULL FROM holders"
        )
        await orchestrator.reap()
        assert [row["id"] for row in lab.sql("SELECT id FROM holders WHERE id = 'dead'")] == []


async def test_an_operator_who_sweeps_is_the_actor(lab: Any) -> None:
    async with lab.ready(settings=lab.settings(release_on_close=False)) as (orchestrator, environment):
        await orchestrator.acquire_lease(environment, lab.run())
    async with lab.open() as orchestrator:
        await orchestrator.reap(actor=Actor(type="operator", id="kim"))
    (event,) = lab.activities("environment.lease_released")
    assert (event["actor_type"], event["actor_id"], event["agent_id"]) == ("operator", "kim", "agent-1")
