"""What people and programs see: tables, fields, messages, JSON; nothing that came from elsewhere can steer the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import click

__all__ = [
    "block",
    "clean",
    "clean_block",
    "coloured",
    "fields",
    "heading",
    "line",
    "note",
    "print_json",
    "shown",
    "table",
    "verdicts",
    "warn",
]

# Control characters, unassigned and private ones, lone surrogates, line and paragraph separators, and the invisible
# format characters (bidirectional overrides among them) that make a line read otherwise than it is.
_HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_COLOURS = {
    **dict.fromkeys(("ok", "active", "success", "chosen", "gone"), "green"),
    **dict.fromkeys(("warning", "pending_cleanup", "pending", "waiting", "archived"), "yellow"),
    **dict.fromkeys(("error", "failed", "broken"), "red"),
}
LEAST_WRAPPED_WIDTH = 24
"""A column that would be narrower than this is not wrapped."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def clean(text: str) -> str:
    """Return ``text`` as one line whose invisible and control characters are written out (``\\x1b``)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def clean_block(text: str) -> str:
    """Like `clean`, but lines stay lines and tabs stay tabs."""
    return "\n".join("\t".join(clean(part) for part in line.split("\t")) for line in text.split("\n"))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code <= 0xFF:
        return _NAMED.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def coloured(stream: IO[Any]) -> bool:
    """Whether ``stream`` is a terminal that may get colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shown(value: object) -> str:
    """Return a value as people read it in a cell: ``-`` for nothing, times in UTC to the second."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(_time(value) if hasattr(value, "isoformat") else str(value))


def _time(value: Any) -> str:
    text: str = value.isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in aligned columns, two spaces apart; the headings are bold on a terminal.

    On a terminal that is too narrow the last column is wrapped; where that is not enough, each row becomes a few lines.
    """
    cells = [[shown(value) for value in row] for row in rows]
    widths = [max(_width(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]
    room = _columns()
    if room is not None and sum(widths) + 2 * (len(widths) - 1) > room:
        widths[-1] = room - sum(widths[:-1]) - 2 * (len(widths) - 1)
        if widths[-1] < LEAST_WRAPPED_WIDTH:
            _stacked(headings, cells, room)
            return
    for index, row in enumerate([list(headings), *cells]):
        for part, text in enumerate(_wrapped(row[-1], widths[-1])):
            first = row[:-1] if part == 0 else [""] * (len(row) - 1)
            line = [_padded(cell, width) for cell, width in zip(first, widths, strict=False)]
            _line(_styled("  ".join([*line, text]).rstrip(), bold=index == 0))


def _padded(cell: str, width: int) -> str:
    return _coloured_word(cell) + " " * (width - _width(cell))


def _stacked(headings: Sequence[str], rows: Iterable[Sequence[str]], room: int) -> None:
    width = max(map(_width, headings))
    for index, row in enumerate(rows):
        if index:
            _line("")
        for name, cell in zip(headings, row, strict=True):
            first, *rest = _wrapped(cell, room - width - 2)
            if cell != "-":
                _line(f"{_styled(f'{name:{width}}', bold=True)}  {_coloured_word(first)}")
            for text in rest:
                _line(" " * (width + 2) + text)


def verdicts(found: Iterable[tuple[str, str, str, str | None]]) -> None:
    """Print verdict, subject and message of each finding, and below it what to do next."""
    rows = [(shown(verdict), shown(subject), shown(message), hint) for verdict, subject, message, hint in found]
    left = max((_width(verdict) for verdict, *_ in rows), default=0)
    middle = max((_width(subject) for _, subject, *_ in rows), default=0)
    room = _columns()
    beside = room is None or room - left - middle - 4 >= LEAST_WRAPPED_WIDTH
    indent = " " * (left + middle + 4 if beside else left + 2)
    width = 0 if room is None else max(room - len(indent), 1)
    for verdict, subject, message, hint in rows:
        lines = _wrapped(message, width)
        first = f"{_padded(verdict, left)}  {_padded(subject, middle)}"
        _line(f"{first}  {lines.pop(0)}" if beside else first.rstrip())
        for text in [*lines, *(_wrapped(f"→ {clean(hint)}", width) if hint else [])]:
            _line(indent + text)


def _columns() -> int | None:
    """Return how wide the terminal is; None for what is not one: there a row stays a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _wrapped(text: str, width: int) -> list[str]:
    if width <= 0 or _width(text) <= width:
        return [text]
    import textwrap

    # A word that does not fit, such as a path, is not cut: somebody may want to copy it.
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False) or [text]


def _styled(text: str, **style: Any) -> str:
    return click.style(text, **style) if coloured(sys.stdout) else text


def _coloured_word(cell: str) -> str:
    colour = _COLOURS.get(cell)
    return cell if colour is None else _styled(cell, fg=colour)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def fields(values: Mapping[str, object], indent: str = "") -> None:
    """Print names and values below each other, aligned."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        _line(f"{indent}{_styled(f'{name:{width}}', bold=True)}  {_coloured_word(shown(value))}")


def heading(text: str) -> None:
    """Print a heading, with an empty line above."""
    _line("")
    _line(_styled(text, bold=True))


def line(text: str) -> None:
    """Print one line."""
    _line(clean(text))


def block(text: str, indent: str = "  ") -> None:
    """Print text of several lines."""
    for part in clean_block(text).split("\n"):
        _line(indent + part)


def _line(text: str) -> None:
    sys.stdout.write(
        text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8") + "\n"
    )


def print_json(document: Any) -> None:
    """Print one JSON document. Only ASCII, so that it is the same whatever the locale is."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def warn(message: str, *notes: str) -> None:
    """Say on stderr what went wrong, in one line and one for each note."""
    for index, text in enumerate((message, *notes)):
        _say(f"{'  ' if index else ''}{clean(text)}")


def note(message: str, *, quiet: bool) -> None:
    """Say on stderr what a person should know, unless that is not wanted."""
    if not quiet:
        _say(clean(message))


before_message: Callable[[], None] | None = None
"""Takes away what is only there for the moment, such as a line of progress."""


def _say(text: str) -> None:
    if before_message is not None:
        before_message()
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(f"sojourn: {text}\n".encode(encoding, "replace").decode(encoding))
        sys.stderr.flush()
    except (OSError, ValueError):
        # Nobody reads it; that must not become an error of its own.
        pass
