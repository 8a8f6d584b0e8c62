"""What is measured: rows of samples, their percentiles, and whether a target was met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import attrs

__all__ = ["Left", "Part", "Row", "Table", "percentile"]

Figure = Literal["ours", "ratio", "difference"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile, interpolated between the two nearest values.

    Args:
        values: at least one.
        share: 0.5 for the median.
    """
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@attrs.frozen(kw_only=True)
class Row:
    """One line of the report.

    Args:
        id: the benchmark's name, like ``P5``.
        work: what was done.
        ours: a time in milliseconds for each repetition.
        floor: the same work without sojourn, interleaved; None where there is nothing to compare with.
        floor_work: what the floor does.
        target: for people; None for a row that only informs.
        figure: what the target's limit is about: our median, the ratio of the medians, or their difference.
        limit: in milliseconds, or a ratio.
        broken: what else the target asks for and was not so.
        note: what has to be known to read the figures.
    """

    id: str
    work: str
    ours: Sequence[float]
    floor: Sequence[float] | None = None
    floor_work: str = ""
    target: str | None = None
    figure: Figure = "ours"
    limit: float | None = None
    broken: str = ""
    note: str = ""

    def ratio(self, share: float) -> float | None:
        """Return ours / floor at a percentile."""
        return percentile(self.ours, share) / percentile(self.floor, share) if self.floor else None

    def judged(self, share: float) -> float:
        """Return the figure that the limit is compared with, at a percentile."""
        ours = percentile(self.ours, share)
        if self.floor and self.figure == "ratio":
            return ours / percentile(self.floor, share)
        if self.floor and self.figure == "difference":
            return ours - percentile(self.floor, share)
        return ours

    @property
    def verdict(self) -> str:
        """``met`` or ``missed`` by the median, and by what; empty for a row that only informs."""
        if self.limit is None:
            return ""
        unit = "times" if self.figure == "ratio" else "ms"
        if self.broken:
            return f"missed: {self.broken}"
        if self.judged(0.5) > self.limit:
            return f"missed ({self.judged(0.5):.3g} {unit})"
        return "met" if self.judged(0.95) <= self.limit else f"met at p50, not at p95 ({self.judged(0.95):.3g} {unit})"


@attrs.frozen(kw_only=True)
class Table:
    """Further figures of a benchmark, for people."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str = ""


@attrs.define
class Left:
    """What was found after the work that should not have been there."""

    processes: int = 0
    leases: int = 0
    files: int = 0

    def add(self, other: Left) -> None:
        """Count what was found elsewhere, too."""
        self.processes += other.processes
        self.leases += other.leases
        self.files += other.files

    @property
    def nothing(self) -> bool:
        """Whether nothing was left."""
        return not (self.processes or self.leases or self.files)


@attrs.define
class Part:
    """The answer of one benchmark."""

    rows: list[Row] = attrs.field(factory=list)
    tables: list[Table] = attrs.field(factory=list)
    left: Left = attrs.field(factory=Left)

    def dump(self) -> dict[str, Any]:
        """Return it as plain JSON, times to the microsecond."""
        return attrs.asdict(self, value_serializer=lambda _, __, value: _rounded(value))

    @classmethod
    def load(cls, data: dict[str, Any]) -> Part:
        """Read what `dump` gave."""
        return cls(
            [Row(**row) for row in data["rows"]], [Table(**table) for table in data["tables"]], Left(**data["left"])
        )


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def spread(values: Sequence[float]) -> str:
    """Return minimum, median and maximum, for a note."""
    return f"{min(values):.1f} / {statistics.median(values):.1f} / {max(values):.1f}"
