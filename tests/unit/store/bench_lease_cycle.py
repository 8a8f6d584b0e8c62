"""Time a lease cycle of four transactions and two activities; run it with python, pytest does not collect it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from sojourn import hosts
from sojourn.models import Disposition, ResourceState, RunContext
from sojourn.records import Environment, Holder, Lease, LeaseOutcome, LeasePolicy
from sojourn.store import Store, activity, environments, holders, leases

CYCLES = 500
CALLERS = 16


def record(conn: Any, lease: Lease, action: str) -> Lease:
    activity.record(
        conn,
        tenant=lease.tenant,
        actor_type="agent",
        actor_id="a",
        agent_id="a",
        run_id=lease.context.run_id,
        action=action,
        entity_type="lease",
        entity_id=lease.id,
        details={"driver": lease.driver},
    )
    return lease


def activate(conn: Any, lease: Lease) -> Lease:
    lease = leases.activate(conn, lease, handle={"v": 1}, provider_lease_id=None, metadata={}, expires_at=None)
    return record(conn, lease, "environment.lease_acquired")


def complete(conn: Any, lease: Lease) -> Lease:
    lease = leases.complete_release(conn, lease, state=ResourceState.GONE, handle=None)
    return record(conn, lease, "environment.lease_released")


async def cycle(store: Store, environment: Environment, holder: Holder, run_id: str) -> None:
    new = leases.NewLease(
        context=RunContext(tenant="t", run_id=run_id, agent_id="a"),
        environment_id=environment.id,
        environment_name=environment.name,
        driver="local",
        provider="local",
        holder_id=holder.id,
        config={},
        config_version=1,
        policy=LeasePolicy.EPHEMERAL,
        transfer="copy",
        fingerprint="f",
    )
    lease = await store.run(leases.insert_intent, new)
    lease = await store.run(activate, lease)
    lease = await store.run(
        leases.claim_release,
        lease.id,
        lease.epoch,
        holder_id=holder.id,
        outcome=LeaseOutcome.RELEASED,
        disposition=Disposition.DESTROY,
        failure_reason=None,
    )
    await store.run(complete, lease)


async def main(folder: Path) -> None:
    started = time.perf_counter()
    store = await Store.open(folder / "s.db")
    print(f"create {1000 * (time.perf_counter() - started):.1f} ms")
    await store.close()
    started = time.perf_counter()
    store = await Store.open(folder / "s.db")
    print(f"open {1000 * (time.perf_counter() - started):.1f} ms")
    process = attrs.asdict(hosts.this_process())
    me = Holder(id="h", beat_at=datetime.now(UTC), fenced_at=None, **process)
    holder = await store.run(holders.register, me)
    environment = await store.run(environments.ensure_local, "t")

    async def cycles(name: str, count: int) -> None:
        for n in range(count):
            await cycle(store, environment, holder, f"{name}-{n}")

    await cycles("warm", 20)
    started = time.perf_counter()
    await cycles("one", CYCLES)
    print(f"one caller: {1000 * (time.perf_counter() - started) / CYCLES:.2f} ms per cycle")
    started = time.perf_counter()
    await asyncio.gather(*(cycles(str(n), CYCLES // CALLERS) for n in range(CALLERS)))
    print(f"{CALLERS} callers: {CYCLES // CALLERS * CALLERS / (time.perf_counter() - started):.0f} cycles/s")
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(Path(made)))
