"""Describe a driver's config class to people and editors: names, types, defaults, help, which are secrets."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from sojourn import wire
from sojourn.errors import InvalidConfig
from sojourn.secrets import Secret

__all__ = ["ConfigField", "Kind", "check_value", "config_fields", "json_schema"]

_FACTORY: Any = type(attrs.Factory(list))  # typed as a function, and a class when it runs
_REFERENCE = {"type": "string", "pattern": "^[a-z][a-z0-9_.+-]*:.+"}

Kind = Literal["text", "number", "whole number", "yes or no", "choice", "secret", "list", "object"]
_SIMPLE: dict[Any, tuple[Kind, str]] = {
    str: ("text", "string"),
    int: ("whole number", "integer"),
    float: ("number", "number"),
    bool: ("yes or no", "boolean"),
    timedelta: ("number", "number"),
}


@attrs.frozen(kw_only=True)
class ConfigField:
    """One field of a config class.

    Args:
        name: as written in a config.
        kind: what its value is, for people.
        required: it has no default.
        default: as plain JSON; None where it has none, or where None is it.
        optional: it may be left empty (None).
        help: from ``metadata={"help": ...}`` of the attrs field, else from ``Args:`` in the class's docstring.
        choices: of a ``choice``.
        item: the kind of a list's items.
        schema: JSON Schema of its value.
    """

    name: str
    kind: Kind
    required: bool
    default: Any
    optional: bool
    help: str
    choices: tuple[str, ...] = ()
    item: Kind | None = None
    schema: Mapping[str, Any] = attrs.field(factory=dict)


def config_fields(config_class: type[Any]) -> list[ConfigField]:
    """Return the fields of a driver's config class, in their order."""
    hints = typing.get_type_hints(config_class)
    said = _said(config_class)
    return [_field(field, hints[field.name], said) for field in attrs.fields(config_class) if field.init]


def json_schema(config_class: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a config, for editors."""
    fields = config_fields(config_class)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: dict(field.schema) for field in fields},
        "required": [field.name for field in fields if field.required],
    }


def check_value(config_class: type[Any], name: str, value: Any, others: Mapping[str, Any]) -> None:
    """Check one value of a config that is not complete yet.

    Args:
        config_class: of the driver.
        name: of the field, as written in a config.
        value: plain JSON.
        others: what is known of the other fields, for a validator that looks at them.

    Raises:
        InvalidConfig: with the path from ``name`` on.
    """
    fields = {field.alias or field.name: field for field in attrs.fields(config_class) if field.init}
    hints = typing.get_type_hints(config_class)
    draft = object.__new__(config_class)
    try:
        for key in [key for key in others if key in fields and key != name]:
            object.__setattr__(draft, fields[key].name, wire.load(hints[fields[key].name], others[key]))
        loaded = wire.load(hints[fields[name].name], value)
    except wire.WireError as error:
        dot = "." if error.path and not error.path.startswith("[") else ""
        raise InvalidConfig(f"{name}{dot}{error.path}", error.reason) from None
    validator = fields[name].validator
    if validator is None:
        return
    try:
        validator(draft, fields[name], loaded)
    except AttributeError:
        # It looks at a field that nobody has named yet; the whole config is checked in the end.
        pass
    except InvalidConfig as error:
        raise InvalidConfig(name, error.reason) from None
    except Exception as error:  # noqa: BLE001 - as `wire` does: whatever a validator raises is a reason
        reason = str(error.args[0]) if error.args else type(error).__name__
        raise InvalidConfig(name, reason.removeprefix(f"'{fields[name].name}' ")) from None


def _said(config_class: type[Any]) -> dict[str, str]:
    """Return what the docstring says below ``Args:``, by name."""
    lines = (config_class.__doc__ or "").partition("Args:\n")[2].splitlines()
    said: dict[str, str] = {}
    name = ""
    for line in lines:
        start, colon, rest = line.strip().partition(": ")
        if colon and start.isidentifier() and line.startswith("        ") and not line.startswith("         "):
            name, said[start] = start, rest
        elif name and line.startswith("            "):
            said[name] += f" {line.strip()}"
        else:
            name = ""
    return {name: text.replace("``", "`") for name, text in said.items()}


def _field(field: attrs.Attribute[Any], hint: Any, said: Mapping[str, str]) -> ConfigField:
    inner, optional = _without_none(hint)
    default = _default(field)
    kind = _kind(inner)
    item = _kind(_without_none(get_args(inner)[0])[0]) if kind == "list" and get_args(inner) else None
    schema = _schema(inner)
    name = field.alias or field.name
    text = str(field.metadata.get("help", "")) or said.get(name, "")
    if text:
        schema["description"] = text
    if default is not None and not attrs.has(inner):
        schema["default"] = default
    return ConfigField(
        name=name,
        kind=kind,
        required=field.default is attrs.NOTHING,
        default=default,
        optional=optional,
        help=text,
        choices=_choices(inner),
        item=item,
        schema=schema,
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    others = [arg for arg in get_args(hint) if arg is not type(None)]
    inner = others[0] if len(others) == 1 else Union[tuple(others)]  # noqa: UP007 - built from a list
    return inner, len(others) < len(get_args(hint))


def _default(field: attrs.Attribute[Any]) -> Any:
    if field.default is attrs.NOTHING:
        return None
    factory: Any = field.default
    if isinstance(factory, _FACTORY):
        # One that takes the object has no value of its own.
        return None if factory.takes_self else wire.dump(factory.factory())
    return wire.dump(field.default)


def _kind(hint: Any) -> Kind:
    if hint in _SIMPLE:
        return _SIMPLE[hint][0]
    if hint is Secret:
        return "secret"
    if _choices(hint):
        return "choice"
    if hint in (tuple, list, frozenset) or get_origin(hint) in (tuple, list, frozenset):
        return "list"
    if hint is not Any and isinstance(hint, type) and not attrs.has(hint) and not issubclass(hint, Mapping | dict):
        return "text"
    return "object"


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return tuple(str(choice) for choice in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return tuple(member.value for member in hint)
    return ()


def _schema(hint: Any) -> dict[str, Any]:
    hint, _ = _without_none(hint)
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return {"anyOf": [_alternative(argument) for argument in arguments]}
    if hint is Any:
        return {}
    kind = _kind(hint)
    if kind == "choice":
        return {"enum": list(arguments) if get_origin(hint) is Literal else list(_choices(hint))}
    if kind == "secret":
        return dict(_REFERENCE)
    if kind == "list":
        return {"type": "array", "items": _schema(arguments[0])} if arguments else {"type": "array"}
    if attrs.has(hint):
        return json_schema(hint)
    if kind == "object":
        values = _schema(arguments[1]) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    return {"type": _SIMPLE[hint][1] if hint in _SIMPLE else "string"}


def _alternative(hint: Any) -> dict[str, Any]:
    """Beside plain text a secret is told apart by its table: ``{secret = "env:NAME"}``."""
    if hint is not Secret:
        return _schema(hint)
    table = {"type": "object", "properties": {"secret": dict(_REFERENCE)}, "required": ["secret"]}
    return {**table, "additionalProperties": False}
