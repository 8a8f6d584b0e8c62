"""What is shown of foreign text: nothing in it steers the terminal, and columns stay columns."""

from __future__ import annotations

import pytest

from sojourn.cli import output
from sojourn.cli.types import DURATION, duration_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer 日本", "größer 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b1m\x00", "\\x9b1m\\x00"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str):
    assert output.clean(text) == shown


def test_a_block_keeps_its_lines_and_tabs():
    assert output.clean_block("a\tb\n\x1b[2Jc") == "a\tb\n\\x1b[2Jc"


def test_a_table_is_aligned_and_plain_when_piped(capsys: pytest.CaptureFixture[str]):
    output.table(("A", "B"), [("x", None), ("longer\n", True)])
    assert capsys.readouterr().out == "A         B\nx         -\nlonger\\n  yes\n"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("2d", 172800)])
def test_durations_are_understood(text: str, seconds: float):
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize(("seconds", "text"), [(1.0, "1 s"), (0.25, "0.25 s"), (90, "90 s")])
def test_durations_are_told(seconds: float, text: str):
    assert duration_text(seconds) == text
