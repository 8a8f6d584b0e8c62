"""An environment as a text in an editor: checked before anything is stored, and never lost on the way."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import click

from sojourn import wire
from sojourn.cli import terminal
from sojourn.cli.failures import CommandLineError
from sojourn.cli.output import warn
from sojourn.declarations import DeclaredEnvironment, check_environment
from sojourn.drivers import DriverRegistry
from sojourn.errors import EnvironmentRunError, InvalidConfig

__all__ = ["edited"]


def edited(name: str, before: DeclaredEnvironment) -> DeclaredEnvironment:
    """Return what a person makes of ``before`` in an editor.

    Raises:
        CommandLineError: it is not valid and is not edited again; the text is kept, and where is said.
    """
    if not terminal.present() and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise CommandLineError("--editor needs a terminal, or $EDITOR", "no_editor")
    # Readable by us alone: variables stand in it.
    descriptor, path = tempfile.mkstemp(prefix=f"sojourn-{name}-", suffix=".json")
    text = json.dumps(wire.dump(before), indent=2, ensure_ascii=False) + "\n"
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    file = Path(path)
    kept = True
    try:
        found = _edited(name, file)
        kept = False
    except BaseException as error:
        with contextlib.suppress(OSError):
            kept = file.read_text("utf-8", "replace") != text
        if kept:
            error.add_note(f"nothing was stored; your text is in {file}")
        raise
    finally:
        if not kept:
            file.unlink(missing_ok=True)
    return found


def _edited(name: str, file: Path) -> DeclaredEnvironment:
    while True:
        click.edit(filename=str(file))
        try:
            return _checked(name, file)
        except CommandLineError as error:
            if not terminal.present():
                raise
            warn(str(error))
            if not terminal.confirm("Edit it again?", default=True):
                raise


def _checked(name: str, file: Path) -> DeclaredEnvironment:
    try:
        data = json.loads(file.read_text("utf-8"))
        declared = wire.load(DeclaredEnvironment, data, path=f"environments.{name}")
        check_environment(name, declared, DriverRegistry())
    except json.JSONDecodeError as error:
        raise CommandLineError(f"line {error.lineno}: not JSON: {error.msg}", "invalid_config") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CommandLineError(f"cannot be read: {type(error).__name__}", "invalid_config") from None
    except (wire.WireError, InvalidConfig, EnvironmentRunError) as error:
        raise CommandLineError(str(error), "invalid_config") from None
    return declared
