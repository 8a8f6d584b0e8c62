"""A plot of all rows as SVG: medians and 95th percentiles, ours above the floor, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench_rows import Row, percentile

__all__ = ["plot"]

WIDTH = 1000
LEFT = 430
RIGHT = 90
ROW_HEIGHT = 44
TOP = 64
OURS = "#1f6feb"
FLOOR = "#8c959f"
TARGET = "#cf222e"
LONGEST_LABEL = 62
FEWEST_MILLISECONDS = 0.01


def plot(rows: Sequence[Row]) -> str:
    """Return the SVG."""
    height = TOP + ROW_HEIGHT * len(rows) + 40
    body = "\n".join(
        [*_axis(rows, height), *(line for index, row in enumerate(rows) for line in _row(rows, index, row))]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n{_legend()}\n{body}\n</svg>\n'
    )


def _legend() -> str:
    names = ((OURS, "sojourn: p50 (dot) to p95"), (FLOOR, "floor: p50 to p95"), (TARGET, "target in milliseconds"))
    return "\n".join(
        f'<circle cx="{20 + 230 * index}" cy="20" r="5" fill="{colour}"/>'
        f'<text x="{32 + 230 * index}" y="24">{name}</text>'
        for index, (colour, name) in enumerate(names)
    )


def _decades(rows: Sequence[Row]) -> tuple[int, int]:
    values = [max(value, FEWEST_MILLISECONDS) for row in rows for value in _values(row)]
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _values(row: Row) -> list[float]:
    limit = [row.limit] if row.limit is not None and row.figure == "ours" else []
    return limit + [percentile(times, share) for times in (row.ours, row.floor) if times for share in (0.5, 0.95)]


def _x(rows: Sequence[Row], milliseconds: float) -> float:
    low, high = _decades(rows)
    share = (math.log10(max(milliseconds, FEWEST_MILLISECONDS)) - low) / max(1, high - low)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _axis(rows: Sequence[Row], height: int) -> Iterator[str]:
    low, high = _decades(rows)
    for power in range(low, high + 1):
        x = _x(rows, 10.0**power)
        yield f'<line x1="{x:.1f}" y1="{TOP - 16}" x2="{x:.1f}" y2="{height - 30}" stroke="#eaeef2"/>'
        yield f'<text x="{x:.1f}" y="{height - 14}" text-anchor="middle" fill="#57606a">{10.0**power:g} ms</text>'


def _row(rows: Sequence[Row], index: int, row: Row) -> Iterator[str]:
    y = TOP + ROW_HEIGHT * index
    label = f"{row.id}: {row.work.replace('`', '')}"
    shown = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
    yield f'<text x="{LEFT - 12}" y="{y + 10}" text-anchor="end">{escape(shown)}</text>'
    yield from _bar(rows, row.ours, y, OURS)
    if row.floor:
        yield from _bar(rows, row.floor, y + 16, FLOOR)
    if row.limit is not None and row.figure == "ours":
        x = _x(rows, row.limit)
        yield f'<line x1="{x:.1f}" y1="{y - 8}" x2="{x:.1f}" y2="{y + 24}" stroke="{TARGET}" stroke-width="2"/>'


def _bar(rows: Sequence[Row], times: Sequence[float], y: int, colour: str) -> Iterator[str]:
    middle, high = percentile(times, 0.5), percentile(times, 0.95)
    start, end = _x(rows, middle), _x(rows, high)
    yield f'<line x1="{start:.1f}" y1="{y + 4}" x2="{end:.1f}" y2="{y + 4}" stroke="{colour}" stroke-width="4"/>'
    yield f'<circle cx="{start:.1f}" cy="{y + 4}" r="5" fill="{colour}"/>'
    yield f'<text x="{end + 9:.1f}" y="{y + 8}" fill="{colour}" font-size="11">{middle:.3g}</text>'
