"""P5 and P7: commands in one lease, beside asyncio alone; and what the first command and the release cost."""

from __future__ import annotations

import asyncio
import time

from bench_place import Place, interleaved, marker, opened, processes_with, raw, timed
from bench_rows import Left, Part, Row

from sojourn import Session

__all__ = ["lease_ends", "parallel", "short_commands"]

RAW = "asyncio.create_subprocess_exec with the same environment and pipes"


async def short_commands(quick: bool) -> Part:
    """Measure P5."""
    part = Part()
    count = 5 if quick else 200
    async with opened(part.left) as place, place.orchestrator.session(workspace=place.workspace) as session:
        env = await place.environment_of(session)

        async def ours() -> None:
            if (await session.execute(["true"])).exit_code != 0:
                raise RuntimeError("true failed")

        async def floor() -> None:
            await raw("true", env=env, cwd=place.workspace)

        await interleaved(2 if quick else 20, ours, floor)
        for work, pause_seconds in (("back to back", 0.0), ("with pauses of 50 ms", 0.05)):
            mine, theirs = await interleaved(count, ours, floor, pause_seconds=pause_seconds)
            part.rows.append(
                Row(
                    id="P5",
                    work=f"`true` in one lease, {work}",
                    ours=mine,
                    floor=theirs,
                    floor_work=RAW,
                    target="≤ 2 times raw",
                    figure="ratio",
                    limit=2.0,
                )
            )
    return part


async def parallel(quick: bool) -> Part:
    """Measure P7."""
    part = Part()
    async with opened(part.left) as place, place.orchestrator.session(workspace=place.workspace) as session:
        env = await place.environment_of(session)

        async def ours() -> None:
            await asyncio.gather(*(session.execute(["sleep", "0.5"]) for _ in range(8)))

        async def floor() -> None:
            await asyncio.gather(*(raw("sleep", "0.5", env=env, cwd=place.workspace) for _ in range(8)))

        first = await timed(ours)
        mine, theirs = await interleaved(1 if quick else 20, ours, floor)
    part.rows.append(
        Row(
            id="P7",
            work="`sleep 0.5`, 8 at once, in one lease",
            ours=mine,
            floor=theirs,
            floor_work=RAW,
            target="≤ 0.6 s",
            limit=600.0,
            note=f"the first 8 at once of the lease, not counted: {first:.0f} ms",
        )
    )
    return part


# -- not in the list of targets ---------------------------------------------------------------------------------------


async def lease_ends(quick: bool) -> Part:
    """Measure the first command of a lease, and releases with nothing and with something running."""
    part = Part()
    first: list[float] = []
    second: list[float] = []
    idle: list[float] = []
    busy: list[float] = []
    async with opened(part.left) as place:
        for _ in range(2 if quick else 50):
            one, two, end = await _lease_with_nothing(place)
            first.append(one)
            second.append(two)
            idle.append(end)
            busy.append(await _lease_with_child(place, part.left))
    part.rows += [
        Row(
            id="first",
            work="first `true` of a lease (starts its supervisor)",
            ours=first,
            floor=second,
            floor_work="the second `true` of the same lease",
        ),
        Row(
            id="release",
            work="release while a setsid'd child of an ended command runs; the child is gone afterwards",
            ours=busy,
            floor=idle,
            floor_work="release of a lease that ran commands and has nothing running",
        ),
    ]
    return part


async def _lease_with_nothing(place: Place) -> tuple[float, float, float]:
    async with place.orchestrator.session(workspace=place.workspace) as session:
        first = await timed(lambda: session.execute(["true"]))
        second = await timed(lambda: session.execute(["true"]))
        start = time.perf_counter()
    return first, second, (time.perf_counter() - start) * 1000


async def _lease_with_child(place: Place, left: Left) -> float:
    mark = marker()
    async with place.orchestrator.session(workspace=place.workspace) as session:
        await _start_child(session, mark)
        start = time.perf_counter()
    milliseconds = (time.perf_counter() - start) * 1000
    left.processes += len(processes_with(mark))
    return milliseconds


async def _start_child(session: Session, mark: str) -> None:
    await session.execute(["sh", "-c", f"setsid sleep 300.{mark} >/dev/null 2>&1 &"])
    if not processes_with(f"300.{mark}"):
        raise RuntimeError("the child does not run")
