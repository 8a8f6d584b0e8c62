"""How an error looks at the command line: one line on stderr, with --json also a document, and an exit status."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from sojourn.cli.output import clean, print_json, warn
from sojourn.errors import DriverError, EnvironmentRunError, SojournError

if TYPE_CHECKING:
    from sojourn.cli.context import State

__all__ = ["CommandLineError", "document", "report"]

USAGE_STATUS = 2


class CommandLineError(SojournError):
    """Something that only the command line can say.

    Args:
        message: for people.
        code: for programs.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def report(error: Exception, state: State, words: Sequence[str]) -> int:
    """Show an error and return the exit status that it means.

    Args:
        error: whatever left the command.
        state: the global options, as far as they were read.
        words: of the command line, for an error that came before its options were read.
    """
    if isinstance(error, click.ClickException):
        return _usage(error, state, words)
    if os.environ.get("SOJOURN_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, SojournError):
        warn(str(error), *getattr(error, "__notes__", ()))
    else:
        hint = "SOJOURN_DEBUG=1 shows where"
        warn(f"{type(error).__name__}: {error} (this is a bug of sojourn; {hint})", *getattr(error, "__notes__", ()))
    if state.json:
        print_json(document(error))
    return state.failure_status


def _usage(error: click.ClickException, state: State, words: Sequence[str]) -> int:
    error.show(file=sys.stderr)
    ours = words[: words.index("--")] if "--" in words else words
    if state.json or "--json" in ours:
        print_json(_shape("usage", error.format_message()))
    return USAGE_STATUS if isinstance(error, click.UsageError) else state.failure_status


def document(error: Exception) -> dict[str, Any]:
    """Return the one shape that every error has in JSON; see docs/reference/cli.md."""
    if isinstance(error, EnvironmentRunError):
        found = _shape(str(error.code), error.message)
        for name in ("phase", "environment_id", "driver", "provider", "lease_id", "retryable", "details"):
            found["error"][name] = getattr(error, name)
        found["error"]["effect"] = str(error.effect)
    else:
        found = _shape(_code(error), str(error))
        if isinstance(error, DriverError):
            found["error"] |= {"effect": str(error.effect), "retryable": error.retryable}
    found["error"]["notes"] = list(getattr(error, "__notes__", ()))
    return found


def _code(error: Exception) -> str:
    if isinstance(error, CommandLineError):
        return error.code
    if isinstance(error, SojournError):
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return "internal_error"


def _shape(code: str, message: str) -> dict[str, Any]:
    empty = dict.fromkeys(("phase", "environment_id", "driver", "provider", "lease_id"))
    return {
        "error": {
            "code": code,
            "message": clean(message),
            **empty,
            "effect": "none",
            "retryable": False,
            "details": {},
            "notes": [],
        }
    }
