"""P1: one whole cycle of a lease on SQLite, beside bare transactions of the same number."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_place import Place, interleaved, opened
from bench_rows import Part, Row, Table, percentile

from sojourn import RunContext
from sojourn.drivers import Driver
from sojourn.store import Store

__all__ = ["cycle"]

STEPS = ("resolve and acquire", "realize", "release")
_numbers = itertools.count()
Spans = list[tuple[str, float]]


async def cycle(quick: bool) -> Part:
    """Measure P1."""
    part = Part()
    warm, count, looked = (2, 5, 3) if quick else (30, 300, 100)
    async with opened(part.left) as place:
        for _ in range(warm):
            await _cycle(place)
        with _watched_store() as spans:
            await _cycle(place)
        reads, writes = (sum(name.startswith(kind) for name, _ in spans) for kind in ("read", "write"))
        with _bare_store(place.folder / "bare.db") as bare:

            async def floor() -> None:
                bare(reads, writes)

            ours, theirs = await interleaved(count, lambda: _cycle(place), floor)
        part.rows.append(
            Row(
                id="P1",
                work="resolve, acquire, realize in place, release; local driver, SQLite, no command",
                ours=ours,
                floor=theirs,
                floor_work=f"{writes} writing and {reads} reading transactions of one statement each, with sqlite3 alone",
                target="≤ 5 ms",
                limit=5.0,
                note=f"{writes} writing and {reads} reading transactions in a cycle",
            )
        )
        part.tables += await _where_the_time_goes(place, looked)
    return part


async def _cycle(place: Place, steps: dict[str, list[float]] | None = None) -> None:
    run = RunContext(tenant="default", run_id=f"bench-{next(_numbers)}", agent_id=None)
    orchestrator = place.orchestrator
    marks = [time.perf_counter()]
    acquisition = await orchestrator.acquire_for_run(run)
    marks.append(time.perf_counter())
    await orchestrator.realize_for_run(acquisition, place.workspace)
    marks.append(time.perf_counter())
    report = await orchestrator.release_for_run(run)
    marks.append(time.perf_counter())
    if len(report.released) != 1:
        raise RuntimeError(f"the lease was not released: {report.errors}")
    if steps is not None:
        for name, (start, end) in zip(STEPS, itertools.pairwise(marks), strict=True):
            steps.setdefault(name, []).append((end - start) * 1000)


@contextlib.contextmanager
def _bare_store(path: Path) -> Iterator[Callable[[int, int], None]]:
    """Give a function that makes that many transactions, with the pragmas of the store."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, status TEXT, body TEXT)")

        def transactions(reads: int, writes: int) -> None:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("INSERT INTO rows (status, body) VALUES ('a', ?)", ("x" * 500,)).lastrowid
            connection.execute("COMMIT")
            for index in range(writes - 1):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE rows SET status = ? WHERE id = ?", (str(index), row))
                connection.execute("COMMIT")
            for _ in range(reads):
                connection.execute("BEGIN")
                connection.execute("SELECT * FROM rows WHERE id = ?", (row,)).fetchone()
                connection.execute("COMMIT")

        yield transactions


# -- where the time goes ----------------------------------------------------------------------------------------------


async def _where_the_time_goes(place: Place, count: int) -> list[Table]:
    steps: dict[str, list[float]] = {}
    for _ in range(count):
        await _cycle(place, steps)
    with _watched_store() as store, _watched_driver() as driver:
        for _ in range(count):
            await _cycle(place)
    return [
        Table(title="P1: a cycle by steps", head=("step", "p50 ms", "p95 ms"), lines=_lines(list(steps.items()))),
        Table(
            title="P1: transactions and driver calls of a cycle",
            head=("what", "p50 ms", "p95 ms"),
            lines=_lines(_grouped(store)) + _lines(_grouped(driver)),
            note="Seen from the event loop: with the way to the store's or the driver's thread and back.",
        ),
    ]


def _grouped(spans: Spans) -> list[tuple[str, list[float]]]:
    groups: dict[str, list[float]] = {}
    for name, milliseconds in spans:
        groups.setdefault(name, []).append(milliseconds)
    return list(groups.items())


def _lines(groups: list[tuple[str, list[float]]]) -> list[list[str]]:
    return [[name, f"{percentile(times, 0.5):.2f}", f"{percentile(times, 0.95):.2f}"] for name, times in groups]


@contextlib.contextmanager
def _watched_store() -> Iterator[Spans]:
    def name(kind: str) -> Callable[..., str]:
        return lambda store, fn, *_, **__: f"{kind}: {_short(fn)}"

    with _watched(Store, run=name("write"), read=name("read")) as spans:
        yield spans


@contextlib.contextmanager
def _watched_driver() -> Iterator[Spans]:
    hooks = {hook: (lambda *_, hook=hook, **__: f"driver: {hook}") for hook in ("acquire", "realize", "release")}
    with _watched(Driver, **hooks) as spans:
        yield spans


@contextlib.contextmanager
def _watched(owner: type, **names: Callable[..., str]) -> Iterator[Spans]:
    """Replace methods by ones that note how long they took."""
    spans: Spans = []
    originals = {method: getattr(owner, method) for method in names}
    for method, name in names.items():
        setattr(owner, method, _noting(originals[method], name, spans))
    try:
        yield spans
    finally:
        for method, original in originals.items():
            setattr(owner, method, original)


def _noting(original: Any, name: Callable[..., str], spans: Spans) -> Any:
    async def method(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return await original(*args, **kwargs)
        finally:
            spans.append((name(*args, **kwargs), (time.perf_counter() - start) * 1000))

    return method


def _short(fn: Any) -> str:
    """Name a transaction: its module, and the function that it is or is made in."""
    function = getattr(fn, "func", fn)
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__.split('.')[0].lstrip('_')}"
