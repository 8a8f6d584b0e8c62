"""Of several that claim the same lease at once, exactly one succeeds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import LeaseLost
from sojourn.models import Disposition
from sojourn.records import LeaseOutcome, LeaseStatus
from sojourn.store import LeaseExists, holders, leases


def race(count: int, attempt: Callable[[int], Any]) -> list[Any]:
    """Start ``count`` threads at one barrier; returns what each got, an exception included."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def work(n: int) -> None:
        barrier.wait()
        try:
            results[n] = attempt(n)
        except (LeaseLost, LeaseExists) as error:
            results[n] = error

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def winners(results: list[Any]) -> list[Any]:
    return [result for result in results if not isinstance(result, Exception)]


def claim(conn: Any, lease_id: str, holder_id: str) -> Any:
    return leases.claim_release(
        conn,
        lease_id,
        None,
        holder_id=holder_id,
        outcome=LeaseOutcome.RELEASED,
        disposition=Disposition.DESTROY,
        failure_reason=None,
    )


@pytest.mark.parametrize("count", [2, 8])
def test_one_of_several_threads_claims_a_release(world: Any, make_holder: Any, count: int) -> None:
    for n in range(count):
        world.do(holders.register, make_holder(f"h{n}"))
    for _ in range(20):
        lease = world.active()
        won = winners(race(count, lambda n, lease=lease: world.do(claim, lease.id, f"h{n}")))
        assert won == [world.get(lease)]


def test_one_of_several_threads_claims_a_clean_up(world: Any) -> None:
    for _ in range(20):
        pending = world.in_state(LeaseStatus.PENDING_CLEANUP)
        again = {"holder_id": world.holder.id, "next_try_at": datetime.now(UTC), "force": True}
        won = winners(race(4, lambda n, p=pending, a=again: world.do(leases.claim_cleanup, p, **a)))
        assert [lease.attempts for lease in won] == [1]


def test_one_of_several_threads_leases_for_a_run(world: Any) -> None:
    for _ in range(20):
        new = [world.new(run_id="r", lease_key="k") for _ in range(4)]
        results = race(4, lambda n, new=new: world.do(leases.insert_intent, new[n]))
        (won,) = winners(results)
        assert {error.existing.id for error in results if isinstance(error, LeaseExists)} == {won.id}
        world.do(leases.fail_acquire, won, reason="next round")


def test_one_of_several_threads_takes_up_a_kept_place(world: Any) -> None:
    for _ in range(20):
        kept = world.in_state(LeaseStatus.RETAINED, retained_for="reuse")
        (won,) = winners(race(4, lambda n, kept=kept: world.do(leases.supersede, kept, world.new())))
        assert (won.supersedes, won.epoch) == (kept.id, kept.epoch + 1)


def test_a_takeover_and_a_step_of_the_holder_never_both_succeed(world: Any, make_holder: Any) -> None:
    for n in range(20):
        holder = world.do(holders.register, make_holder(f"dead-{n}"))
        lease = world.intent(holder_id=holder.id)

        def attempt(n: int, lease: Any = lease, holder: Any = holder) -> Any:
            if n == 0:
                return world.do(leases.take_over, holder.id, reason="dead")
            return world.do(leases.fail_acquire, lease, reason="nothing made")

        taken, failed = race(2, attempt)
        assert (len(taken) == 1) is isinstance(failed, LeaseLost)
        assert world.get(lease).epoch == 1 + len(taken)


def test_one_of_eight_processes_claims_each_release(world: Any, path: Path, make_holder: Any, processes: Any) -> None:
    for n in range(8):
        world.do(holders.register, make_holder(f"p{n}"))
    made = [world.active() for _ in range(20)]
    program = """
        import asyncio, sys
        from sojourn.errors import LeaseLost
        from sojourn.models import Disposition
        from sojourn.records import LeaseOutcome, LeaseStatus
        from sojourn.store import Store, leases

        async def main():
            store = await Store.open(sys.argv[1])
            for lease in await store.read(leases.list_all):
                try:
                    await store.run(
                        leases.claim_release, lease.id, lease.epoch, holder_id="p" + sys.argv[2],
                        outcome=LeaseOutcome.RELEASED, disposition=Disposition.DESTROY, failure_reason=None,
                    )
                    print(lease.id)
                except LeaseLost:
                    pass
            await store.close()

        asyncio.run(main())
    """
    claimed = " ".join(processes(8, program, path)).split()
    assert sorted(claimed) == sorted(lease.id for lease in made)
