"""P11: what it costs to import sojourn and to start its command line, in fresh processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_place import count_left
from bench_rows import Part, Row, Table, spread

__all__ = ["startup"]

SOJOURN = str(Path(sys.executable).with_name("sojourn"))
BARE = [sys.executable, "-c", "pass"]
IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")
SHOWN_IMPORTS = 12


async def startup(quick: bool) -> Part:
    """Measure P11."""
    part = Part()
    count = 2 if quick else 40
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name:
        folder = Path(name)
        env = _environment(folder)
        run = [SOJOURN, "run", "--", "true"]
        first = _timed(run, env, folder)
        _timed([SOJOURN, "--help"], env, folder)
        bare = "the same interpreter with an empty program"
        _add(
            part,
            count,
            env,
            folder,
            [sys.executable, "-c", "import sojourn"],
            BARE,
            "`import sojourn`",
            bare,
            limit=20.0,
        )
        _add(part, count, env, folder, [SOJOURN, "--help"], BARE, "`sojourn --help`", bare, limit=200.0)
        _add(part, count, env, folder, run, ["true"], "`sojourn run -- true`", "`true`")
        part.tables.append(_imports(["run", "--", "true"], env, folder))
        part.left.add(count_left(folder, folder / "store.db"))
    part.tables.append(
        Table(
            title="P11: fresh processes",
            head=("what", "min / p50 / max ms"),
            lines=[
                *([row.work, spread(row.ours)] for row in part.rows),
                ["the empty program", spread(part.rows[0].floor or ())],
                ["`sojourn run -- true`, the very first, which makes the store", f"{first:.1f}"],
            ],
        )
    )
    return part


def _environment(folder: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SOJOURN_")}
    return {**env, "SOJOURN_STORE": str(folder / "store.db"), "XDG_STATE_HOME": str(folder / "state")}


def _add(
    part: Part,
    count: int,
    env: dict[str, str],
    folder: Path,
    argv: Sequence[str],
    floor_argv: Sequence[str],
    work: str,
    floor_work: str,
    *,
    limit: float | None = None,
) -> None:
    ours: list[float] = []
    floor: list[float] = []
    for index in range(count):
        for which in (ours, floor) if index % 2 else (floor, ours):
            which.append(_timed(argv if which is ours else floor_argv, env, folder))
    over = limit is not None and limit < 100
    target = None if limit is None else f"≤ {limit:.0f} ms" + (" over the empty program" if over else "")
    part.rows.append(
        Row(
            id="P11",
            work=work,
            ours=ours,
            floor=floor,
            floor_work=floor_work,
            target=target,
            figure="difference" if over else "ours",
            limit=limit,
        )
    )


def _timed(argv: Sequence[str], env: dict[str, str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(argv, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def _imports(arguments: Sequence[str], env: dict[str, str], folder: Path) -> Table:
    """Sum up what each package costs by itself, as the interpreter counts it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sojourn", *arguments],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    packages: dict[str, list[int]] = {}
    for own_us, _, __, module in IMPORT_LINE.findall(done.stderr):
        packages.setdefault(module.partition(".")[0], []).append(int(own_us))
    largest = sorted(packages.items(), key=lambda item: -sum(item[1]))[:SHOWN_IMPORTS]
    total_us = sum(sum(times) for times in packages.values())
    modules = sum(len(times) for times in packages.values())
    return Table(
        title=f"P11: the largest imports of `sojourn {' '.join(arguments)}`",
        head=("package", "modules", "ms, its own modules only"),
        lines=[
            *([name, str(len(times)), f"{sum(times) / 1000:.1f}"] for name, times in largest),
            ["all", str(modules), f"{total_us / 1000:.1f}"],
        ],
        note="By -X importtime, which makes imports slower than they are; one run.",
    )
