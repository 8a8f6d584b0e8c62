"""Questions to a person: only where one sits at the terminal, and on stderr, because stdout is for the answer."""

from __future__ import annotations

import sys

import click

from sojourn.cli.output import clean

__all__ = ["ask", "confirm", "present", "tell"]


def present() -> bool:
    """Whether somebody can read a question and answer it."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask(question: str, *, default: str | None = None) -> str:
    """Return one line, without blanks around it; an empty one is the default.

    Raises:
        click.Abort: Ctrl-C, or the end of the input.
    """
    shown = f"{clean(question)} [{clean(default)}]" if default else clean(question)
    answer: str = click.prompt(shown, default="", show_default=False, err=True)
    return answer.strip() or default or ""


def confirm(question: str, *, default: bool = False) -> bool:
    """Return whether a person says yes.

    Raises:
        click.Abort: Ctrl-C, or the end of the input.
    """
    return click.confirm(clean(question), default=default, err=True)


def tell(text: str) -> None:
    """Say something beside a question."""
    click.echo(clean(text), err=True)
