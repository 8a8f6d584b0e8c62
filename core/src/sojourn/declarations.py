"""Environments declared in a repository: ``sojourn.toml``, or ``[tool.sojourn]`` in ``pyproject.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from sojourn import wire
from sojourn.configfields import json_schema
from sojourn.drivers import DriverRegistry, LoadedDriver
from sojourn.errors import InvalidArgument, InvalidConfig, SojournError
from sojourn.records import AdapterSpec, Environment, LeasePolicy
from sojourn.secrets import Secret
from sojourn.variables import refuse_reserved

__all__ = [
    "Change",
    "Declaration",
    "DeclarationError",
    "DeclaredEnvironment",
    "find_declaration",
    "plan_changes",
    "read_declaration",
    "schema",
]

FILE_NAME = "sojourn.toml"
MAX_BYTES = 1024 * 1024


class DeclarationError(SojournError):
    """A declaration cannot be read. ``file``, ``line`` (None where it cannot be told) and ``path`` say where."""

    def __init__(self, file: Path, line: int | None, path: str, reason: str) -> None:
        where = f"{file}:{line}" if line is not None else str(file)
        super().__init__(f"{where}: {path}: {reason}" if path else f"{where}: {reason}")
        self.file = file
        self.line = line
        self.path = path
        self.reason = reason


@attrs.frozen(kw_only=True)
class DeclaredEnvironment:
    """One ``[environments.NAME]``; the fields are those of `sojourn.Environment`."""

    driver: str
    config: Mapping[str, Any] = attrs.field(factory=dict)
    env: Mapping[str, str | Secret] = attrs.field(factory=dict)
    policy: LeasePolicy = LeasePolicy.EPHEMERAL
    max_leases: int | None = None
    require_probe: bool = False
    timeouts: Mapping[str, float] = attrs.field(factory=dict)
    description: str = ""


@attrs.frozen(kw_only=True)
class DeclaredAdapter:
    """One ``[adapters.TYPE]``: the transports it can run over; none named: any."""

    transports: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True)
class DeclaredDefaults:
    """``[defaults]``: what a run in this repository uses unless it says otherwise.

    Args:
        environment: the project's choice, below execution workspace and issue.
        mode: ``in_place``, ``copy`` or ``git_worktree``.
        provision: set-up command.
        teardown: command before the lease is given back.
        timeout_seconds: time limit of the command.
    """

    environment: str | None = None
    mode: Literal["in_place", "copy", "git_worktree"] | None = None
    provision: str | None = None
    teardown: str | None = None
    timeout_seconds: float | None = None


@attrs.frozen(kw_only=True)
class DeclaredWorkspace:
    """``[workspace]``: what of the tree stays behind when it is copied, in the syntax of ``.gitignore``."""

    exclude: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Declaration:
    """What a repository declares."""

    defaults: DeclaredDefaults = attrs.field(factory=DeclaredDefaults)
    environments: Mapping[str, DeclaredEnvironment] = attrs.field(factory=dict)
    adapters: Mapping[str, DeclaredAdapter] = attrs.field(factory=dict)
    workspace: DeclaredWorkspace = attrs.field(factory=DeclaredWorkspace)

    def adapter_specs(self) -> list[AdapterSpec]:
        """Return the declared adapters as an orchestrator takes them."""
        return [
            AdapterSpec(type=name, transports=None if a.transports is None else frozenset(a.transports))
            for name, a in self.adapters.items()
        ]


# -- reading ----------------------------------------------------------------------------------------------------------


def find_declaration(start: Path) -> Path | None:
    """Return the declaration that holds for ``start``: the nearest one upwards, not beyond the repository's root."""
    folder = start.resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
        if _declares(candidate / "pyproject.toml"):
            return candidate / "pyproject.toml"
        if (candidate / ".git").exists():
            return None
    return None


def _declares(pyproject: Path) -> bool:
    try:
        return "sojourn" in tomllib.loads(pyproject.read_text("utf-8")).get("tool", {})
    except (OSError, ValueError):
        # Somebody else's file; whether it is valid is not ours to say.
        return False


def read_declaration(file: Path, drivers: DriverRegistry) -> Declaration:
    """Read and check a declaration, the drivers' own configs included.

    Raises:
        DeclarationError: naming file, line and path; nothing was stored.
        EnvironmentRunError: ``driver_unavailable``.
    """
    text = _text(file)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise DeclarationError(file, int(line[1]) if line else None, "", f"is not TOML: {error}") from None
    prefix = ""
    if file.name == "pyproject.toml":
        prefix, data = "tool.sojourn", data.get("tool", {}).get("sojourn", {})
    try:
        declaration = wire.load(Declaration, _with_plain_times(data))
        for name, declared in declaration.environments.items():
            _check_environment(name, declared, drivers)
    except (wire.WireError, InvalidConfig) as error:
        path = ".".join(part for part in (prefix, error.path) if part)
        raise DeclarationError(file, line_of(text, path), path, error.reason) from None
    return declaration


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DeclarationError(file, None, "", f"is larger than {MAX_BYTES} bytes")
        return file.read_text("utf-8")
    except OSError as error:
        raise DeclarationError(file, None, "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DeclarationError(file, None, "", "is not UTF-8 text") from None


def _with_plain_times(data: Any) -> Any:
    """TOML has times of its own; no field takes one, so they become text and are refused like any other."""
    if isinstance(data, dict):
        return {key: _with_plain_times(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_plain_times(value) for value in data]
    return data if isinstance(data, str | int | float | bool) else str(data)


def _check_environment(name: str, declared: DeclaredEnvironment, drivers: DriverRegistry) -> None:
    path = f"environments.{name}"
    drivers.get(declared.driver).load_config(dict(declared.config), f"{path}.config")
    try:
        refuse_reserved(f"{path}.env", declared.env)
    except InvalidArgument as error:
        raise InvalidConfig(f"{path}.env", str(error).removeprefix(f"{path}.env: ")) from None


def line_of(text: str, path: str) -> int | None:
    """Return the line on which ``path`` (dotted) is said, else that of its nearest table; None when neither is there."""
    wanted = [part for part in re.split(r"\.|(?=\[)", path) if part and not part.startswith("[")]
    table: list[str] = []
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        said = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if header:
            table = _keys(header[1])
            here = table
        elif said:
            here = [*table, *_keys(said[1])]
        else:
            continue
        if here == wanted[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def _keys(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


# -- applying ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Change:
    """What applying a declaration does to one environment.

    Args:
        name: of the environment.
        action: what is done.
        fields: for an update, field → (stored, declared), as plain JSON.
    """

    name: str
    action: Literal["create", "update", "unchanged"]
    fields: Mapping[str, tuple[Any, Any]] = attrs.field(factory=dict)


def plan_changes(declaration: Declaration, stored: list[Environment]) -> list[Change]:
    """Compare a declaration with what is stored. What is stored and not declared is left alone."""
    by_name = {environment.name: environment for environment in stored}
    changes = []
    for name, declared in declaration.environments.items():
        before = by_name.get(name)
        if before is None:
            changes.append(Change(name=name, action="create"))
            continue
        fields = _differences(before, declared)
        changes.append(Change(name=name, action="update" if fields else "unchanged", fields=fields))
    return changes


def declared_values(declared: DeclaredEnvironment) -> dict[str, Any]:
    """Return the fields of a declared environment by name, as `Environments.create` and ``update`` take them."""
    return {field.name: getattr(declared, field.name) for field in attrs.fields(DeclaredEnvironment)}


def _differences(stored: Environment, declared: DeclaredEnvironment) -> dict[str, tuple[Any, Any]]:
    differences = {}
    plain_stored, plain_declared = wire.dump(stored), wire.dump(declared)
    for name, after in plain_declared.items():
        if plain_stored[name] != after:
            differences[name] = (plain_stored[name], after)
    if stored.status != "active":
        differences["status"] = (stored.status.value, "active")
    return differences


# -- schema -----------------------------------------------------------------------------------------------------------


def schema(drivers: list[LoadedDriver]) -> dict[str, Any]:
    """Return the JSON Schema of ``sojourn.toml`` with the configs of ``drivers``, for editors."""
    whole = json_schema(Declaration)
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    whole["title"] = FILE_NAME
    environment = json_schema(DeclaredEnvironment)
    environment["allOf"] = [
        {
            "if": {"properties": {"driver": {"const": driver.name}}},
            "then": {"properties": {"config": json_schema(driver.info.config_class)}},
        }
        for driver in drivers
    ]
    secret = {"type": "object", "properties": {"secret": {"type": "string"}}, "required": ["secret"]}
    variable = {"anyOf": [{"type": "string"}, {**secret, "additionalProperties": False}]}
    environment["properties"]["env"] = {"type": "object", "additionalProperties": variable}
    environment["properties"]["timeouts"] = {"type": "object", "additionalProperties": {"type": "number"}}
    whole["properties"]["environments"] = {"type": "object", "additionalProperties": environment}
    whole["properties"]["adapters"] = {"type": "object", "additionalProperties": json_schema(DeclaredAdapter)}
    return whole
