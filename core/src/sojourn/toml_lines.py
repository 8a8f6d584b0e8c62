"""On which line of a TOML text each key and each item of a list is said; `tomllib` gives values without their places."""

from __future__ import annotations

import re
import tomllib

__all__ = ["lines_of"]

_BLANK = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|'
    r"'''.*?'{3,5}|"
    r'"(?:[^"\\]|\\.)*"|'
    r"'[^']*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\n#]*")


def lines_of(text: str) -> dict[str, int]:
    """Return the line of every path in valid TOML: ``table.key``, ``list[0].key``; a table said in parts has its first."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    """Walks over text that `tomllib` has accepted, so it only has to find where things begin and end."""

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self._text = text
        self._at = 0
        self._counted = (0, 1)
        self._lengths: dict[str, int] = {}

    def document(self) -> None:
        table = ""
        self._skip(_BETWEEN)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BETWEEN)

    def _header(self) -> str:
        many = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if many else 1
        *outer, last = self._key()
        self._at += 2 if many else 1
        table = ""
        for part in outer:
            table = self._newest(_join(table, part))
            self._say(table, start)
        table = _join(table, last)
        if many:
            self._say(table, start)
            table = f"{table}[{self._next(table)}]"
        self._say(table, start)
        return table

    def _newest(self, table: str) -> str:
        """A table of many (``[[…]]``) stands for the last one so far."""
        return f"{table}[{self._lengths[table] - 1}]" if table in self._lengths else table

    def _next(self, table: str) -> int:
        self._lengths[table] = self._lengths.get(table, 0) + 1
        return self._lengths[table] - 1

    def _pair(self, table: str) -> None:
        start = self._at
        path = table
        for part in self._key():
            path = _join(path, part)
            self._say(path, start)
        self._at += 1  # the sign =
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            quoted = self._text[self._at] in "\"'"
            found = self._skip(_STRING if quoted else _BARE_KEY)
            parts.append(str(tomllib.loads(f"key = {found}")["key"]) if quoted else found)
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: str) -> None:
        sign = self._text[self._at]
        if sign in "\"'":
            self._skip(_STRING)
        elif sign == "[":
            self._list(path)
        elif sign == "{":
            self._inline(path)
        else:
            self._skip(_PLAIN)

    def _list(self, path: str) -> None:
        self._at += 1
        index = 0
        while not self._closed("]"):
            item = f"{path}[{index}]"
            self._say(item, self._at)
            self._value(item)
            index += 1

    def _inline(self, path: str) -> None:
        self._at += 1
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, sign: str) -> bool:
        """Go on to the next item, or past the end."""
        self._skip(_BETWEEN)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BETWEEN)
        if self._text[self._at] != sign:
            return False
        self._at += 1
        return True

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not TOML at character {self._at}")
        self._at = found.end()
        return found[0]

    def _say(self, path: str, start: int) -> None:
        if path not in self.lines:
            before, line = self._counted
            line += self._text.count("\n", before, start)
            self._counted = (start, line)
            self.lines[path] = line


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part
