"""An open store with an environment and a holder in it, and leases in whatever state a test needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn import hosts
from sojourn.ids import new_id
from sojourn.models import Disposition, RunContext
from sojourn.records import CleanupStatus, Environment, Holder, Lease, LeaseOutcome, LeasePolicy, LeaseStatus
from sojourn.store import Store, environments, holders, leases
from sojourn.store.schema import leases as leases_table


@attrs.frozen
class World:
    """What most tests start from; ``do`` runs one transaction."""

    store: Store
    environment: Environment
    holder: Holder

    def do(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.store.run_here(fn, *args, **kwargs)

    def new(self, **changes: Any) -> leases.NewLease:
        run_id = changes.pop("run_id", new_id("run"))
        values = {
            "context": RunContext(tenant="t", run_id=run_id, agent_id="agent-1", issue_id="7", trace={"id": "x"}),
            "environment_id": self.environment.id,
            "environment_name": self.environment.name,
            "driver": "local",
            "provider": "local",
            "holder_id": self.holder.id,
            "config": {"port": 22},
            "config_version": 1,
            "policy": LeasePolicy.EPHEMERAL,
            "transfer": "copy",
            "fingerprint": "f",
        }
        return leases.NewLease(**{**values, **changes})

    def intent(self, **changes: Any) -> Lease:
        return self.do(leases.insert_intent, self.new(**changes))

    def active(self, **changes: Any) -> Lease:
        return self.do(activate, self.intent(**changes))

    def claimed(
        self, disposition: Disposition = Disposition.DESTROY, outcome: LeaseOutcome = LeaseOutcome.RELEASED
    ) -> Lease:
        lease = self.active()
        return self.do(claim, lease, holder_id=self.holder.id, disposition=disposition, outcome=outcome)

    def in_state(self, status: LeaseStatus, **columns: Any) -> Lease:
        """A row put into a state by force, with the columns that such a row has."""
        lease = self.intent()
        values: dict[str, Any] = {"status": status, **columns}
        if status not in (LeaseStatus.WAITING, LeaseStatus.ACQUIRING, LeaseStatus.ACTIVE):
            values = {"outcome": LeaseOutcome.RELEASED, "disposition": Disposition.KEEP, **values}
        if status is LeaseStatus.PENDING_CLEANUP:
            values = {"cleanup_status": CleanupStatus.PENDING, **values}

        def force(conn: Any) -> None:
            conn.execute(leases_table.update().where(leases_table.c.id == lease.id).values(**values))

        self.do(force)
        return self.do(leases.get, lease.id)

    def get(self, lease: Lease) -> Lease:
        return self.do(leases.get, lease.id)


def activate(conn: Any, lease: Lease) -> Lease:
    return leases.activate(conn, lease, handle={"v": 1}, provider_lease_id=None, metadata={}, expires_at=None)


def claim(conn: Any, lease: Lease, *, holder_id: str, disposition: Disposition, outcome: LeaseOutcome) -> Lease:
    return leases.claim_release(
        conn, lease.id, lease.epoch, holder_id=holder_id, outcome=outcome, disposition=disposition, failure_reason=None
    )


def a_holder(holder_id: str, **changes: Any) -> Holder:
    process = attrs.asdict(hosts.this_process())
    return Holder(**{"id": holder_id, "beat_at": datetime.now(UTC), "fenced_at": None, **process, **changes})


@pytest.fixture
def make_holder() -> Callable[..., Holder]:
    return a_holder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sojourn.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = asyncio.run(Store.open(path))
    yield opened
    asyncio.run(opened.close())


@pytest.fixture
def world(store: Store) -> World:
    environment = store.run_here(environments.ensure_local, "t")
    return World(store, environment, store.run_here(holders.register, a_holder("holder-1")))


@pytest.fixture
def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def processes() -> Callable[[int, str, Path], list[str]]:
    """Run the same program in several processes at once; returns what each printed."""

    def run(count: int, program: str, path: Path) -> list[str]:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(path)]
        started = [
            subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for n in range(count)
        ]
        done = [process.communicate(timeout=100) for process in started]
        assert [process.returncode for process in started] == [0] * count, "\n".join(err for _, err in done)
        return [out.strip() for out, _ in done]

    return run
