"""`Store.run` is the only door: one transaction, to its end, whatever happens to the caller."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sojourn.errors import LeaseLost, StoreError, StoreUnavailable, WrongContext
from sojourn.store import Store, environments
from sojourn.store import engine as engines
from sojourn.store import store as store_module
from sojourn.store.schema import meta


def put(conn: Any, key: str, value: str = "x") -> str:
    conn.execute(meta.insert().values(key=key, value=value))
    return value


def keys(conn: Any) -> set[str]:
    return set(conn.execute(sa.select(meta.c.key)).scalars()) - {"installation_id", "location_fingerprint"}


def opened(path: Path, body: Any) -> Any:
    async def main() -> Any:
        store = await Store.open(path)
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(main())


def test_a_transaction_commits_and_gives_its_result(path: Path) -> None:
    async def body(store: Store) -> None:
        assert await store.run(put, "a", value="v") == "v"
        assert await store.read(keys) == {"a"}

    opened(path, body)


def test_what_the_function_raises_rolls_back_and_arrives_unchanged(path: Path) -> None:
    error = LeaseLost("mine")

    def fail(conn: Any, what: BaseException) -> None:
        put(conn, "a")
        raise what

    async def body(store: Store) -> None:
        for raised in (error, KeyboardInterrupt(), SystemExit(3)):
            # asyncio lets the last two end the loop when a task of its own raises them; here they come by a future.
            with pytest.raises(type(raised)) as caught:
                await store.run(fail, raised)
            assert caught.value is raised
        assert await store.read(keys) == set()

    opened(path, body)


def test_a_read_cannot_write_and_a_write_after_it_can(path: Path) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(StoreError, match="readonly"):
            await store.read(put, "a")
        await store.run(put, "b")
        assert await store.read(keys) == {"b"}

    opened(path, body)


class Slow:
    """A transaction that waits in the middle until the test lets it go on."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()
        self.ended = False

    def __call__(self, conn: Any) -> None:
        self.started.set()
        assert self.go.wait(30)
        put(conn, "slow")
        self.ended = True


def test_a_cancelled_caller_of_a_running_transaction_resumes_after_its_end(path: Path) -> None:
    slow = Slow()

    async def body(store: Store) -> None:
        task = asyncio.create_task(store.run(slow))
        await asyncio.to_thread(slow.started.wait, 30)
        for _ in range(3):  # cancelled again and again, it still waits
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.ended
        assert await store.read(keys) == {"slow"}

    opened(path, body)


def test_a_cancelled_caller_of_a_queued_transaction_resumes_after_its_end(path: Path) -> None:
    slow = Slow()

    async def body(store: Store) -> None:
        first = asyncio.create_task(store.run(slow))
        await asyncio.to_thread(slow.started.wait, 30)
        queued = asyncio.create_task(store.run(put, "queued"))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.sleep(0.01)
        assert not queued.done()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await queued
        await first
        assert await store.read(keys) == {"slow", "queued"}

    opened(path, body)


def test_a_timeout_around_a_transaction_is_a_timeout_after_its_end(path: Path) -> None:
    slow = Slow()

    async def body(store: Store) -> None:
        asyncio.get_running_loop().call_later(0.1, slow.go.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await store.run(slow)
        assert slow.ended

    opened(path, body)


def test_a_cancelled_caller_learns_of_a_failed_transaction_by_a_note(path: Path) -> None:
    gate = threading.Event()

    def fail(conn: Any) -> None:
        assert gate.wait(30)
        put(conn, "a")
        raise LeaseLost("gone")

    async def body(store: Store) -> None:
        task = asyncio.create_task(store.run(fail))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.__notes__ == ["the store's transaction failed: gone"]
        assert await store.read(keys) == set()

    opened(path, body)


def test_closing_finishes_the_queue_and_later_use_is_an_error(path: Path) -> None:
    slow = Slow()

    async def body(store: Store) -> None:
        running = asyncio.create_task(store.run(slow))
        await asyncio.to_thread(slow.started.wait, 30)
        queued = asyncio.create_task(store.run(put, "queued"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0.01)
        slow.go.set()
        await asyncio.gather(running, queued, closing)
        await store.close()
        with pytest.raises(WrongContext, match="closed"):
            await store.run(put, "late")
        with pytest.raises(WrongContext, match="closed"):
            store.run_here(put, "late")

    opened(path, body)
    assert opened(path, lambda store: store.read(keys)) == {"slow", "queued"}


def test_a_forked_child_may_not_use_its_parents_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        with pytest.raises(WrongContext, match="another process"):
            asyncio.run(store.run(keys))


def test_a_hanging_transaction_does_not_hold_the_interpreter(tmp_path: Path) -> None:
    program = """
import asyncio, sys, threading
from sojourn.store import Store
async def main():
    store = await Store.open(sys.argv[1])
    started = threading.Event()
    def hang(conn):
        started.set()
        threading.Event().wait()
    store._submit(store._engine, hang)
    started.wait()
asyncio.run(main())
print("left")
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "s.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


def test_a_lock_that_passes_is_waited_for_by_running_again(store: Store) -> None:
    tries = []

    def busy(conn: Any) -> int:
        put(conn, "a")
        tries.append(1)
        if len(tries) < 3:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
            raise sa.exc.OperationalError("q", {}, error)
        return len(tries)

    assert store.run_here(busy) == 3
    assert store.run_here(keys) == {"a"}


def test_a_lock_that_stays_is_unavailable_after_five_tries(store: Store) -> None:
    tries = []

    def busy(conn: Any) -> None:
        tries.append(1)
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise sa.exc.OperationalError("q", {}, error)

    with pytest.raises(StoreUnavailable, match="locked by another writer"):
        store.run_here(busy)
    assert len(tries) == 5


def test_another_writer_makes_us_wait_its_time_and_no_longer(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The busy timeout has passed inside SQLite when the error comes: it is not waited for four times more.
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_SECONDS", 0.0)
    calls = []
    monkeypatch.setattr(store_module.time, "sleep", calls.append)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with store._engine.connect() as conn:
        conn.connection.dbapi_connection.execute("PRAGMA busy_timeout = 10")
    try:
        with pytest.raises(StoreUnavailable, match="locked"):
            store.run_here(put, "a")
        assert calls == []
        # Readers are not held up.
        assert asyncio.run(store.read(keys)) == set()
    finally:
        other.close()


def test_values_that_a_type_refuses_are_the_callers_error(store: Store) -> None:
    for bad, kind in (({"x": float("nan")}, ValueError), ({"x": object()}, TypeError)):
        with pytest.raises(kind) as caught:
            store.run_here(environments.insert, tenant="t", name="n", driver="d", config=bad)
        assert caught.value.__cause__ is None


def test_errors_quote_no_values(store: Store) -> None:
    put_twice = {"key": "secretkey", "value": "hunter2"}

    def fail(conn: Any) -> None:
        conn.execute(meta.insert(), put_twice)
        conn.execute(meta.insert(), put_twice)

    with pytest.raises(StoreError, match="rule of its schema") as caught:
        store.run_here(fail)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)


def test_eight_processes_that_read_and_then_write_never_find_it_locked(
    store: Store, path: Path, processes: Any
) -> None:
    store.run_here(put, "n", value="0")
    program = """
        import asyncio, sys
        import sqlalchemy as sa
        from sojourn.store import Store
        from sojourn.store.schema import meta

        def add(conn):
            value = int(conn.execute(sa.select(meta.c.value).where(meta.c.key == "n")).scalar_one())
            conn.execute(meta.update().where(meta.c.key == "n").values(value=str(value + 1)))

        async def main():
            store = await Store.open(sys.argv[1])
            for _ in range(50):
                await store.run(add)
            await store.close()

        asyncio.run(main())
    """
    processes(8, program, path)
    assert store.run_here(lambda conn: conn.execute(sa.select(meta.c.value).where(meta.c.key == "n")).scalar()) == "400"


def test_threads_of_one_process_share_the_store(store: Store) -> None:
    def work(n: int) -> None:
        store.run_here(put, f"k{n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.run_here(keys)) == 8


def test_times_come_back_aware_and_sort_as_text(store: Store) -> None:
    from sojourn.store.types import UtcTimestamp

    kind = UtcTimestamp()
    dialect = store._engine.dialect
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime(1999, 12, 31, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, UTC)]
    texts = [kind.process_bind_param(time, dialect) for time in times]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {27}
    assert [kind.process_result_value(text, dialect) for text in texts] == times
    with pytest.raises(ValueError, match="naive"):
        kind.process_bind_param(datetime(2026, 1, 1), dialect)
