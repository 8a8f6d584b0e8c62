"""Read what a repository declares in ``sojourn.toml``, or in ``[tool.sojourn]`` of ``pyproject.toml``, and check it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from sojourn import wire
from sojourn.declared_records import (
    Declaration,
    DeclarationError,
    DeclaredAdapter,
    DeclaredDefaults,
    DeclaredEnvironment,
    DeclaredWorkspace,
)
from sojourn.drivers import DriverRegistry
from sojourn.errors import EnvironmentRunError, InvalidArgument, InvalidConfig
from sojourn.stored_environments import check_name, check_numbers
from sojourn.toml_lines import lines_of
from sojourn.variables import refuse_reserved

__all__ = [
    "Declaration",
    "DeclarationError",
    "DeclarationFile",
    "DeclaredAdapter",
    "DeclaredDefaults",
    "DeclaredEnvironment",
    "DeclaredWorkspace",
    "check_environment",
    "line_of",
    "parse_declaration",
    "read_declaration",
]

FILE_NAME = "sojourn.toml"
PYPROJECT = "pyproject.toml"
MAX_BYTES = 1024 * 1024
MOST_LEASES = 2**31 - 1
"""What a database holds in a whole number."""


@attrs.frozen(kw_only=True)
class DeclarationFile:
    """A declaration with the text that it came from, so that what is wrong can be told with its line.

    Args:
        file: where it is.
        text: what is in it.
        prefix: of its paths: ``tool.sojourn`` in a ``pyproject.toml``.
        declaration: as read; the drivers' configs are not checked yet.
    """

    file: Path
    text: str = attrs.field(repr=False)
    prefix: str
    declaration: Declaration

    def line(self, path: str) -> int | None:
        """Return the line where ``path``, without the prefix, is said."""
        return line_of(self.text, _join(self.prefix, path))

    def check(self, drivers: DriverRegistry, *, missing_drivers: Literal["refuse", "ignore"] = "refuse") -> None:
        """Check every environment against its driver.

        Args:
            drivers: that are installed.
            missing_drivers: whether an environment whose driver cannot be used here is an error.

        Raises:
            DeclarationError: a config is wrong.
            EnvironmentRunError: ``driver_unavailable``, with a note that says where.
        """
        for name, declared in self.declaration.environments.items():
            try:
                check_environment(name, declared, drivers)
            except InvalidConfig as error:
                raise _error(self.file, self.text, self.prefix, error.path, error.reason) from None
            except EnvironmentRunError as error:
                if missing_drivers == "refuse":
                    path = f"environments.{name}.driver"
                    error.add_note(f"named in {self.file}:{self.line(path)}: {_join(self.prefix, path)}")
                    raise


def read_declaration(file: Path, drivers: DriverRegistry) -> Declaration:
    """Read and check a declaration, the drivers' own configs included.

    Raises:
        DeclarationError: naming file, line and path; nothing was stored.
        EnvironmentRunError: ``driver_unavailable``.
    """
    found = parse_declaration(file)
    found.check(drivers)
    return found.declaration


def parse_declaration(file: Path) -> DeclarationFile:
    """Read a declaration; what only a driver can judge is left to `DeclarationFile.check`.

    Raises:
        DeclarationError: naming file, line and path.
    """
    text = _text(file)
    data = _toml(file, text)
    prefix = ""
    if file.name == PYPROJECT:
        tools = data.get("tool")
        prefix, data = "tool.sojourn", tools.get("sojourn", {}) if isinstance(tools, dict) else {}
    try:
        declaration = wire.load(Declaration, _with_plain_times(data))
        for name, declared in declaration.environments.items():
            _check_fields(name, declared)
    except (wire.WireError, InvalidConfig) as error:
        raise _error(file, text, prefix, error.path, error.reason) from None
    return DeclarationFile(file=file, text=text, prefix=prefix, declaration=declaration)


def _error(file: Path, text: str, prefix: str, path: str, reason: str) -> DeclarationError:
    whole = _join(prefix, path)
    return DeclarationError(file, line_of(text, whole), whole, reason)


def _join(prefix: str, path: str) -> str:
    return ".".join(part for part in (prefix, path) if part)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DeclarationError(file, None, "", f"is larger than {MAX_BYTES} bytes")
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise DeclarationError(file, None, "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DeclarationError(file, line, "", "is not UTF-8 text") from None


def _toml(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its sentence may name a key, never a value.
        found = re.search(r"\(at line (\d+), column \d+\)|\(at end of document\)", str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines()) or 1
        sentence = str(error).replace(found[0], "").strip() if found else str(error)
        raise DeclarationError(file, line, "", f"is not TOML: {sentence}") from None
    except (ValueError, RecursionError):
        # A number of thousands of digits, or lists in lists without end.
        raise DeclarationError(file, None, "", "is not TOML that can be read: too deep, or a number too long") from None


def _with_plain_times(data: Any) -> Any:
    """TOML has times of its own; no field takes one, so they become text and are refused like any other."""
    if isinstance(data, dict):
        return {key: _with_plain_times(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_plain_times(value) for value in data]
    return data if isinstance(data, str | int | float | bool) else str(data)


def check_environment(name: str, declared: DeclaredEnvironment, drivers: DriverRegistry) -> None:
    """Check an environment as a whole, its config with its driver.

    Raises:
        InvalidConfig: naming the path from ``environments`` on.
        EnvironmentRunError: ``driver_unavailable``.
    """
    _check_fields(name, declared)
    drivers.get(declared.driver).load_config(dict(declared.config), f"environments.{name}.config")


def _check_fields(name: str, declared: DeclaredEnvironment) -> None:
    path = f"environments.{name}"
    try:
        check_name(name, declared.driver)
    except InvalidConfig as error:
        # Its path may be shortened for people; ours has to be found in the file.
        raise InvalidConfig(f"{path}.driver" if error.path.endswith(".driver") else path, error.reason) from None
    check_numbers(path, declared.max_leases, declared.timeouts)
    if declared.max_leases is not None and declared.max_leases > MOST_LEASES:
        raise InvalidConfig(f"{path}.max_leases", f"must not be above {MOST_LEASES}")
    try:
        refuse_reserved(f"{path}.env", declared.env)
    except InvalidArgument as error:
        raise _wrong_variable(f"{path}.env", declared.env, str(error)) from None


def _wrong_variable(path: str, env: Mapping[str, object], sentence: str) -> InvalidConfig:
    for name in env:
        if sentence.startswith(f"{path}.{name} "):
            return InvalidConfig(f"{path}.{name}", sentence.removeprefix(f"{path}.{name} "))
        if f"variable {name} " in sentence or f"name {name!r} " in sentence:
            return InvalidConfig(f"{path}.{name}", sentence.removeprefix(f"{path}: "))
    return InvalidConfig(path, sentence.removeprefix(f"{path}: "))


def line_of(text: str, path: str) -> int | None:
    """Return the line on which ``path`` (dotted) is said, else that of its nearest table; None when neither is there."""
    try:
        lines = lines_of(text)
    except (ValueError, IndexError, RecursionError):
        return None
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None
