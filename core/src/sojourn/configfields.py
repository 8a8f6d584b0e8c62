"""Describe a driver's config class to people and editors: names, types, defaults, help, which are secrets."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from sojourn import wire
from sojourn.secrets import Secret

__all__ = ["ConfigField", "Kind", "config_fields", "json_schema"]

_FACTORY: Any = type(attrs.Factory(list))  # typed as a function, and a class when it runs

Kind = Literal["text", "number", "whole number", "yes or no", "choice", "secret", "list", "object"]


@attrs.frozen(kw_only=True)
class ConfigField:
    """One field of a config class.

    Args:
        name: as written in a config.
        kind: what its value is, for people.
        required: it has no default.
        default: as plain JSON; None where it has none, or where None is it.
        optional: it may be left empty (None).
        help: from ``metadata={"help": ...}`` of the attrs field.
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
    return [_field(field, hints[field.name]) for field in attrs.fields(config_class) if field.init]


def json_schema(config_class: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a config, for editors."""
    fields = config_fields(config_class)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: dict(field.schema) for field in fields},
        "required": [field.name for field in fields if field.required],
    }


def _field(field: attrs.Attribute[Any], hint: Any) -> ConfigField:
    inner, optional = _without_none(hint)
    default = _default(field)
    kind = _kind(inner)
    item = _kind(get_args(inner)[0]) if kind == "list" and get_args(inner) else None
    schema = _schema(inner)
    text = str(field.metadata.get("help", ""))
    if text:
        schema["description"] = text
    if default is not None:
        schema["default"] = default
    return ConfigField(
        name=field.alias or field.name,
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
        return None if factory.takes_self else wire.dump(factory.factory())
    return wire.dump(field.default)


def _kind(hint: Any) -> Kind:
    simple: dict[Any, Kind] = {str: "text", int: "whole number", float: "number", bool: "yes or no", Secret: "secret"}
    if hint in simple:
        return simple[hint]
    if _choices(hint):
        return "choice"
    if get_origin(hint) in (tuple, list, frozenset):
        return "list"
    return "object"


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return tuple(str(choice) for choice in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return tuple(member.value for member in hint)
    return ()


def _schema(hint: Any) -> dict[str, Any]:
    hint, _ = _without_none(hint)
    kind = _kind(hint)
    if kind == "choice":
        return {"enum": list(_choices(hint))}
    if kind == "secret":
        return {"type": "string", "pattern": "^[a-z][a-z0-9_.+-]*:.+"}
    if kind == "list":
        arguments = get_args(hint)
        return {"type": "array", "items": _schema(arguments[0])} if arguments else {"type": "array"}
    if attrs.has(hint):
        return json_schema(hint)
    names = {"text": "string", "whole number": "integer", "number": "number", "yes or no": "boolean"}
    return {"type": names.get(kind, "object")}
