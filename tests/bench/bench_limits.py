"""P10: a time limit on a shell with a background child, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
from bench_place import Place, kill, marker, opened, processes_with, timed
from bench_rows import Part, Row

from sojourn import Outcome, Session

__all__ = ["time_limit"]

LIMIT_SECONDS = 1.0
PLAIN = "setsid sleep 300.{mark} & sleep 300.{mark}"
STUBBORN = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 300.{mark}; done' & while :; do sleep 300.{mark}; done"
RAW = "asyncio: wait_for on the command, then kill() of the shell"


@attrs.frozen(kw_only=True)
class Case:
    """One kind of command, and how long it is given after TERM."""

    work: str
    script: str
    grace_seconds: float
    count: int
    target: str


async def time_limit(quick: bool) -> Part:
    """Measure P10."""
    part = Part()
    count = 1 if quick else 10
    cases = [
        Case(
            work="time limit 1 s on a shell with a setsid'd child; grace 5 s, not needed",
            script=PLAIN,
            grace_seconds=5.0,
            count=count,
            target="back ≤ 0.3 s after the limit, 0 processes left",
        ),
        Case(
            work="the same with processes that ignore TERM; grace 0.2 s, included",
            script=STUBBORN,
            grace_seconds=0.2,
            count=count,
            target="back ≤ 0.3 s after limit and grace, 0 processes left",
        ),
        Case(
            work="the same with processes that ignore TERM; grace 0",
            script=STUBBORN,
            grace_seconds=0.0,
            count=count,
            target="back ≤ 0.3 s after the limit, 0 processes left",
        ),
    ]
    async with opened(part.left) as place, place.orchestrator.session(workspace=place.workspace) as session:
        await session.execute(["true"])
        for case in cases:
            part.rows.append(await _row(place, session, case))
    return part


async def _row(place: Place, session: Session, case: Case) -> Row:
    ours: list[float] = []
    floor: list[float] = []
    left_by_us = left_by_raw = 0
    for _ in range(case.count):
        mark = marker()
        ours.append(await _late(partial(_ours, session, case, mark)))
        left_by_us += _swept(mark)
        mark = marker()
        floor.append(await _late(partial(_raw, place, case, mark)))
        left_by_raw += _swept(mark)
    return Row(
        id="P10",
        work=case.work,
        ours=ours,
        floor=floor,
        floor_work=RAW,
        target=case.target,
        limit=300.0 + case.grace_seconds * 1000 * (case.script is STUBBORN),
        broken=f"{left_by_us} processes left" if left_by_us else "",
        note=f"milliseconds after the limit; left in {case.count} rounds: {left_by_us} processes by ours, {left_by_raw} by raw",
    )


async def _late(work: Callable[[], Awaitable[None]]) -> float:
    return await timed(work) - LIMIT_SECONDS * 1000


async def _ours(session: Session, case: Case, mark: str) -> None:
    result = await session.execute(
        ["sh", "-c", case.script.format(mark=mark)],
        timeout_seconds=LIMIT_SECONDS,
        grace_seconds=case.grace_seconds,
    )
    if result.outcome is not Outcome.TIMED_OUT:
        raise RuntimeError(f"the command ended as {result.outcome}")


async def _raw(place: Place, case: Case, mark: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        case.script.format(mark=mark),
        cwd=place.workspace,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    except TimeoutError:
        process.kill()
        # wait() would only return when the pipes are closed, and the children hold them.
        while process.returncode is None:
            await asyncio.sleep(0.001)
    process._transport.close()  # type: ignore[attr-defined]


def _swept(mark: str) -> int:
    """Count the processes that bear the mark, and end them."""
    found = [pid for pid in processes_with(mark) if pid != os.getpid()]
    kill(found)
    return len(found)
