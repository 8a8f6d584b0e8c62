"""What options accept beyond text: durations, assignments, references of secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
    _Pair = click.ParamType[tuple[str, str]]
else:
    # Generic only since click 8.4.
    _Seconds = _Pair = click.ParamType

__all__ = ["ASSIGNMENT", "DURATION", "SECRET", "duration_text"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_LONGEST_SECONDS = 366 * 86400.0


class Duration(_Seconds):
    """Seconds, as a number or with units: ``90``, ``90s``, ``1h30m``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        seconds = _seconds(str(value))
        if seconds is None or not 0 < seconds <= _LONGEST_SECONDS:
            self.fail(
                f"{value!r} is not a duration above 0 and up to a year, like 90, 90s, 10m, 1h30m or 2d", param, ctx
            )
        return seconds


def _seconds(text: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def duration_text(seconds: float) -> str:
    """Return a duration for people: ``1.5 s``."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"


class Assignment(_Pair):
    """``NAME=VALUE``; what is wrong is told without the value, which may be a secret in the wrong place."""

    name = "assignment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and value."""
        if isinstance(value, tuple):
            return value[0], value[1]
        name, equals, rest = str(value).partition("=")
        if not equals or not name:
            self.fail("write NAME=VALUE (what was written is not shown)", param, ctx)
        return name, rest


class SecretAssignment(Assignment):
    """``NAME=REFERENCE``, where the reference says where a secret is: ``env:TOKEN``, ``file:/run/token``."""

    name = "secret"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and reference."""
        name, reference = super().convert(value, param, ctx)
        if not re.fullmatch(r"[a-z][a-z0-9_.+-]*:[^\x00-\x1f]+", reference):
            self.fail(f"{name}: write NAME=env:VARIABLE or NAME=file:PATH (what was written is not shown)", param, ctx)
        return name, reference


DURATION = Duration()
ASSIGNMENT = Assignment()
SECRET = SecretAssignment()
