"""Runs one benchmark in this process and prints its answer as JSON: ``bench_worker.py NAME [--quick]``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from bench_commands import lease_ends, parallel, short_commands
from bench_cycle import cycle
from bench_limits import time_limit
from bench_output import large_output, one_output
from bench_rows import Part
from bench_startup import startup

__all__ = ["BENCHMARKS"]

BENCHMARKS: dict[str, Callable[[bool], Awaitable[Part]]] = {
    "P1": cycle,
    "P5": short_commands,
    "P7": parallel,
    "P8": large_output,
    "P10": time_limit,
    "P11": startup,
    "lease": lease_ends,
}


async def _answer(arguments: list[str]) -> object:
    if arguments[0] == "--output-of":
        return await one_output(arguments[1], int(arguments[2]))
    return (await BENCHMARKS[arguments[0]]("--quick" in arguments)).dump()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_answer(sys.argv[1:]))))
