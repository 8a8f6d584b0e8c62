"""The benchmark runs, leaves nothing, and its report has every row; how fast anything is, is not tested here."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench_plot import plot
from bench_rows import Left, Part, Row, percentile
from bench_worker import BENCHMARKS

ROOT = Path(__file__).resolve().parents[2]
WORK = {
    "P1": 1,
    "P5": 2,
    "P7": 1,
    "P8": 1,
    "P10": 3,
    "P11": 3,
    "first": 1,
    "release": 1,
}
"""By name, how many rows the report has."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts/bench", *arguments], capture_output=True, text=True)


def table_of(page: str) -> list[list[str]]:
    lines = page[page.index("| work |") :].splitlines()
    return [line.strip("| ").split(" | ") for line in lines[2 : lines.index("")]]


def test_a_quick_run_writes_a_report_with_all_rows_and_leaves_nothing(tmp_path: Path):
    done = run("--quick", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "benchmarks.md").read_text("utf-8")
    names = [cells[0] for cells in table_of(page)]
    assert {name: names.count(name) for name in names} == WORK
    assert "0 processes, 0 leases that had not ended, 0 files" in page
    assert str(tmp_path) not in page
    data = json.loads((tmp_path / "benchmarks.json").read_text("utf-8"))
    assert set(data["parts"]) == set(BENCHMARKS)
    ET.parse(tmp_path / "benchmarks.svg")


@pytest.mark.parametrize("arguments", [["--quick"], ["--only", "P5"], ["--only", "P99", "--output", "x"]])
def test_a_part_never_replaces_the_whole_report(arguments: list[str]):
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage: scripts/bench" in done.stderr


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.5), (0.95, 3.85), (1.0, 4.0)])
def test_a_percentile_lies_between_its_neighbours(share: float, value: float):
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(value)


def row(ours: list[float], **fields: object) -> Row:
    return Row(id="P0", work="nothing & more", ours=ours, floor=[1.0, 1.0], floor_work="less", **fields)  # type: ignore[arg-type]


def test_a_target_is_judged_by_its_own_figure():
    assert row([5.0, 5.0], limit=5.0).verdict == "met"
    assert row([5.0, 5.0], limit=4.0).verdict == "missed (5 ms)"
    assert row([5.0, 5.0], limit=4.0, figure="ratio").verdict == "missed (5 times)"
    assert row([5.0, 5.0], limit=4.0, figure="difference").verdict == "met"
    assert row([1.0, 1.0, 9.0], limit=4.0).verdict == "met at p50, not at p95 (8.2 ms)"
    assert row([1.0, 1.0], limit=4.0, broken="a process left").verdict == "missed: a process left"
    assert row([1.0, 1.0]).verdict == ""


def test_a_plot_is_well_formed_whatever_a_row_says():
    ET.fromstring(plot([row([5.0, 500.0], limit=4.0), row([0.0, -1.0])]))


def test_an_answer_comes_back_as_it_was_given():
    part = Part(rows=[row([1.5])], left=Left(processes=1))
    assert Part.load(json.loads(json.dumps(part.dump()))) == part
    assert not part.left.nothing
