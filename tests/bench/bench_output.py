"""P8: a command that writes much: how long it takes, and by how much this process grows meanwhile.

Each measurement is a fresh process, for memory that was once used stays with a process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bench_place import Place, opened, raw
from bench_rows import Left, Part, Row, Table, percentile

from sojourn import Session

__all__ = ["KINDS", "large_output", "one_output"]

MEGABYTE = 1_000_000
SIZE_BYTES = 50 * MEGABYTE
FLAT_MIB = 4.0
PIECE_BYTES = 1 << 16
KINDS = {
    "default": "ours, cap of 8 MiB (the default)",
    "small": "ours, cap of 64 KiB",
    "live": "ours, read while it runs and dropped, cap of 64 KiB",
    "all": "ours, no cap that matters",
    "raw_drop": "raw asyncio, reading and dropping",
    "raw_keep": "raw asyncio, communicate()",
}
Reader = Callable[[Session, Place, dict[str, str], int], Awaitable[int]]


async def large_output(quick: bool) -> Part:
    """Measure P8: starts the fresh processes."""
    part = Part()
    # All of them larger than the cap and what is read at a time, or the memory could not be flat.
    sizes = (25 * MEGABYTE, 50 * MEGABYTE) if quick else (SIZE_BYTES, 4 * SIZE_BYTES)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for size, count in zip(sizes, (1, 1) if quick else (10, 4), strict=True):
        for index in range(count):
            kinds = list(KINDS)[index % len(KINDS) :] + list(KINDS)[: index % len(KINDS)]
            for kind in kinds:
                found.setdefault((kind, size), []).append(await _in_fresh_process(kind, size))
    for answer in (answer for answers in found.values() for answer in answers):
        part.left.add(Left(**answer["left"]))
    _report(part, found, *sizes)
    return part


def _report(part: Part, found: dict[tuple[str, int], list[dict[str, Any]]], size: int, larger: int) -> None:
    def median(kind: str, at: int, what: str) -> float:
        return percentile([answer[what] for answer in found[kind, at]], 0.5)

    growth, more = median("default", size, "growth_mib"), median("default", larger, "growth_mib")
    part.rows.append(
        Row(
            id="P8",
            work=f"{size // MEGABYTE} MB of stdout, the default cap of 8 MiB",
            ours=[answer["ms"] for answer in found["default", size]],
            floor=[answer["ms"] for answer in found["raw_drop", size]],
            floor_work="asyncio, reading and dropping",
            target="≤ 0.6 s; memory flat with a cap",
            limit=600.0,
            broken=f"memory grows with the output, {growth:.1f} → {more:.1f} MiB" if more - growth > FLAT_MIB else "",
            note=f"memory grew by {growth:.1f} MiB, with {larger // MEGABYTE} MB by {more:.1f} MiB",
        )
    )
    part.tables.append(
        Table(
            title="P8: time and memory",
            head=(
                "how",
                *(f"{at // MEGABYTE} MB, {what}" for at in (size, larger) for what in ("p50 ms", "growth MiB")),
            ),
            lines=[
                [text, *(f"{median(kind, at, what):.1f}" for at in (size, larger) for what in ("ms", "growth_mib"))]
                for kind, text in KINDS.items()
            ],
            note="Growth is the highest resident size during the command (VmHWM, reset before) minus that before it; medians of "
            f"{len(found['default', size])} and {len(found['default', larger])} fresh processes.",
        )
    )


async def _in_fresh_process(kind: str, size: int) -> dict[str, Any]:
    worker = Path(__file__).with_name("bench_worker.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, worker, "--output-of", kind, str(size), stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the measurement of {kind} ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(stdout)
    return answer


# -- in the fresh process ---------------------------------------------------------------------------------------------


async def one_output(kind: str, size: int) -> dict[str, Any]:
    """Measure one command of one kind in this process."""
    left = Left()
    async with opened(left) as place, place.orchestrator.session(workspace=place.workspace) as session:
        env = await place.environment_of(session)
        # Both ways are warm: the lease's supervisor runs, and what asyncio loads for a process is loaded.
        await raw("true", env=env, cwd=place.workspace)
        before = _memory_kib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", "ascii")
        start = time.perf_counter()
        seen = await _READERS[kind](session, place, env, size)
        milliseconds = (time.perf_counter() - start) * 1000
        growth = (_memory_kib("VmHWM") - before) / 1024
    if seen != size:
        raise RuntimeError(f"{seen} bytes came, not {size}")
    return {
        "ms": milliseconds,
        "growth_mib": growth,
        "left": {"processes": left.processes, "leases": left.leases, "files": left.files},
    }


def _memory_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _argv(size: int) -> list[str]:
    return ["head", "-c", str(size), "/dev/zero"]


def _capped(limit_bytes: int | None) -> Reader:
    async def read(session: Session, _: Place, __: dict[str, str], size: int) -> int:
        result = await session.execute(_argv(size), output_limit_bytes=limit_bytes)
        return len(result.stdout) + result.stdout_dropped_bytes

    return read


async def _live(session: Session, _: Place, __: dict[str, str], size: int) -> int:
    seen = 0
    async with session.start(_argv(size), output_limit_bytes=64 * 1024) as command:
        async with aclosing(command.output()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                seen += len(chunk.data)
        await command.wait()
    return seen


async def _raw_drop(_: Session, place: Place, env: dict[str, str], size: int) -> int:
    process = await asyncio.create_subprocess_exec(
        *_argv(size),
        env=env,
        cwd=place.workspace,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    seen = 0
    while piece := await process.stdout.read(PIECE_BYTES):
        seen += len(piece)
    await process.wait()
    return seen


async def _raw_keep(_: Session, place: Place, env: dict[str, str], size: int) -> int:
    return len(await raw(*_argv(size), env=env, cwd=place.workspace))


_READERS: dict[str, Reader] = {
    "default": _capped(None),
    "small": _capped(64 * 1024),
    "live": _live,
    "all": _capped(1 << 30),
    "raw_drop": _raw_drop,
    "raw_keep": _raw_keep,
}
