"""Runs every benchmark in a process of its own and writes the report; ``scripts/bench`` starts it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench_report import machine, write
from bench_rows import Part
from bench_worker import BENCHMARKS

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parents[1] / "docs/reference"


def main() -> int:
    """Run; return 1 when something was left behind or a benchmark failed."""
    options = _options()
    facts = {**machine(), "load before": _load()}
    names = options.only or list(BENCHMARKS)
    start = time.monotonic()
    # What says nothing about speed may run at once.
    with ThreadPoolExecutor(len(names) if options.quick else 1) as pool:
        answers = pool.map(lambda name: _run(name, quick=options.quick), names)
        parts = dict(zip(names, answers, strict=True))
    facts |= {"load after": _load(), "duration": f"{time.monotonic() - start:.0f} s"}
    write(options.output, parts, facts, quick=options.quick)
    for row in (row for part in parts.values() for row in part.rows):
        print(f"{row.id:8} {row.verdict or '-':34} {row.work}")
    print(f"written to {options.output}")
    clean = all(part.left.nothing for part in parts.values())
    if not clean:
        print("something was left behind, see the report", file=sys.stderr)
    return 0 if clean else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure sojourn and write the report.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: only shows that everything runs")
    parser.add_argument("--only", type=_names, metavar="P5,P7", help=f"only these of {', '.join(BENCHMARKS)}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the report goes; default: docs/reference")
    options = parser.parse_args()
    if options.output is None:
        if options.quick or options.only:
            parser.error("a report with less than everything needs --output, or it would replace the whole one")
        options.output = REFERENCE
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    return names


def _run(name: str, *, quick: bool) -> Part:
    print(f"{name} …", file=sys.stderr, flush=True)
    argv = [sys.executable, str(HERE / "bench_worker.py"), name, *(["--quick"] if quick else [])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return Part.load(json.loads(done.stdout))


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
