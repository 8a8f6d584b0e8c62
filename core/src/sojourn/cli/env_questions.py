"""Asks a person for a driver's configuration, one field at a time; a wrong answer is asked again with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sojourn.cli import terminal
from sojourn.configfields import check_value, config_fields
from sojourn.errors import InvalidConfig

if TYPE_CHECKING:
    from sojourn.configfields import ConfigField
    from sojourn.drivers import Driver

__all__ = ["ask_config", "ask_driver"]

_HOW = {
    "secret": "where the secret is: env:NAME or file:PATH, not the secret itself",
    "list": "several: with commas between, or as a JSON list",
    "object": "as a JSON object",
    "yes or no": "yes or no",
}
_YES_NO = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]+")


def ask_driver(names: list[str]) -> str:
    """Return the name of an installed driver."""
    terminal.tell(f"Installed drivers: {', '.join(names)}")
    while (answer := terminal.ask("driver", default=names[0] if len(names) == 1 else None)) not in names:
        terminal.tell(f"  is not one of {', '.join(names)}")
    return answer


def ask_config(driver: Driver, given: Mapping[str, Any], path: str, *, defaults: bool) -> dict[str, Any]:
    """Return a complete configuration.

    Args:
        driver: whose.
        given: what was said by options; that is not asked for.
        path: what the configuration is called in errors.
        defaults: take every default there is, without a question.

    Raises:
        InvalidConfig: what was given is wrong, so that no answer helps.
    """
    config = dict(given)
    config_class = driver.info.config_class
    fields = [field for field in config_fields(config_class) if field.name not in given]
    with_default = [field for field in fields if not field.required]
    for field in fields:
        if field.required:
            config[field.name] = _answer(field, config_class, config)
    if with_default and not defaults and terminal.confirm(_gate(with_default)):
        for field in with_default:
            _take(field, _answer(field, config_class, config), config)
    asked = {field.name: field for field in fields}
    while (problem := _problem(driver, config, path)) is not None:
        wrong = asked.get(re.split(r"[.\[]", problem.path.removeprefix(f"{path}."))[0])
        if wrong is None:
            raise problem
        terminal.tell(f"  {wrong.name}: {problem.reason}")
        _take(wrong, _answer(wrong, config_class, config), config)
    return config


def _gate(fields: list[ConfigField]) -> str:
    named = ", ".join(field.name for field in fields)
    return f"Change settings that have a default ({named})?"


def _problem(driver: Driver, config: dict[str, Any], path: str) -> InvalidConfig | None:
    try:
        driver.load_config(config, path)
    except InvalidConfig as error:
        return error
    return None


def _take(field: ConfigField, value: Any, config: dict[str, Any]) -> None:
    """What is the default is not written down: it stays the driver's."""
    if not field.required and value == field.default:
        config.pop(field.name, None)
    else:
        config[field.name] = value


def _answer(field: ConfigField, config_class: type[Any], config: dict[str, Any]) -> Any:
    terminal.tell("")
    if field.help:
        terminal.tell(field.help)
    hint = f"one of {', '.join(field.choices)}" if field.choices else _HOW.get(field.kind, field.kind)
    question = f"{field.name} ({hint})"
    default = None if field.default in (None, [], {}) else _text(field.default)
    while True:
        typed = terminal.ask(question, default=default)
        try:
            value = _value(field, typed)
            if typed:
                check_value(config_class, field.name, value, config)
        except InvalidConfig as error:
            where = error.path.removeprefix(field.name)
            terminal.tell(f"  {where}: {error.reason}" if where else f"  {error.reason}")
            continue
        return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) and not re.search(r"[,\[\s]", item) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _value(field: ConfigField, typed: str) -> Any:
    if not typed:
        if field.required and not field.optional:
            raise InvalidConfig(field.name, "is needed")
        return field.default
    if field.kind == "secret":
        if not _REFERENCE.fullmatch(typed):
            raise InvalidConfig(field.name, "is neither env:NAME nor file:PATH (what was typed is not shown)")
        return typed
    if field.kind == "yes or no":
        return _looked_up(field, _YES_NO, typed.lower(), "is neither yes nor no")
    if field.kind in ("number", "whole number"):
        return _number(field, typed)
    if field.kind == "list" and not typed.startswith("["):
        return _list(field, typed)
    if field.kind in ("list", "object"):
        return _json(field, typed)
    if field.choices:
        values = {str(value): value for value in field.schema.get("enum", field.choices)}
        return _looked_up(field, values, typed, f"is not one of {', '.join(field.choices)}")
    return typed


def _looked_up(field: ConfigField, known: Mapping[str, Any], typed: str, reason: str) -> Any:
    if typed not in known:
        raise InvalidConfig(field.name, reason)
    return known[typed]


def _number(field: ConfigField, typed: str) -> int | float:
    if field.kind == "whole number" and not re.fullmatch(r"[+-]?\d{1,18}", typed):
        raise InvalidConfig(field.name, "is not a whole number")
    try:
        return int(typed) if field.kind == "whole number" else float(typed)
    except ValueError:
        raise InvalidConfig(field.name, "is not a number") from None


def _list(field: ConfigField, typed: str) -> list[Any]:
    items = [item.strip() for item in typed.split(",") if item.strip()]
    return items if field.item in ("text", "choice", "secret", None) else [_json(field, item) for item in items]


def _json(field: ConfigField, typed: str) -> Any:
    try:
        return json.loads(typed)
    except (ValueError, RecursionError):
        raise InvalidConfig(field.name, f"is not JSON; {_HOW.get(field.kind, 'write JSON')}") from None
