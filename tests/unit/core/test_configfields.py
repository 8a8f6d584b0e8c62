"""A config class as people and editors see it: kinds, defaults, help; and one value checked before the rest is known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

import attrs
import pytest
from attrs.validators import ge

from sojourn.configfields import check_value, config_fields, json_schema
from sojourn.errors import InvalidConfig
from sojourn.secrets import Secret


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


@attrs.frozen(kw_only=True)
class Inner:
    """Args:
    depth: how deep.
    """

    depth: int = 1


def below_port(config: Any, _: object, value: int) -> None:
    if value >= config.port:
        raise ValueError("must be below port")


def absolute(_: object, __: object, value: str | None) -> None:
    if value is not None and not value.startswith("/"):
        raise InvalidConfig("folder", "must be absolute")


@attrs.frozen(kw_only=True)
class Config:
    """A config.

    Args:
        host: Where it is,
            in two lines.
    """

    host: str
    port: int = attrs.field(default=22, validator=ge(1), metadata={"help": "TCP port."})
    floor: int = attrs.field(default=0, validator=below_port)
    ratio: float = 0.5
    quick: bool = False
    size: Size = Size.SMALL
    level: Literal[1, 2] = 1
    token: Secret
    maybe: Secret | None = None
    folder: str | None = attrs.field(default=None, validator=absolute)
    words: tuple[str, ...] = ()
    sizes: list[int] = attrs.field(factory=list)
    labels: Mapping[str, int] = attrs.field(factory=dict)
    inner: Inner = attrs.field(factory=Inner)
    either: str | Secret = ""
    wait: timedelta = timedelta(seconds=3)
    anything: Any = None
    derived: int = attrs.field(default=attrs.Factory(lambda self: self.port, takes_self=True))
    _hidden: str = "h"
    made: int = attrs.field(init=False, default=1)


FIELDS = {field.name: field for field in config_fields(Config)}


def test_each_field_has_its_kind():
    assert {name: field.kind for name, field in FIELDS.items()} == {
        "host": "text",
        "port": "whole number",
        "floor": "whole number",
        "ratio": "number",
        "quick": "yes or no",
        "size": "choice",
        "level": "choice",
        "token": "secret",
        "maybe": "secret",
        "folder": "text",
        "words": "list",
        "sizes": "list",
        "labels": "object",
        "inner": "object",
        "either": "object",
        "wait": "number",
        "anything": "object",
        "derived": "whole number",
        "hidden": "text",
    }
    assert (FIELDS["words"].item, FIELDS["sizes"].item) == ("text", "whole number")
    assert (FIELDS["size"].choices, FIELDS["level"].choices) == (("small", "large"), ("1", "2"))


def test_what_is_needed_what_may_be_empty_and_what_is_the_default():
    assert [name for name, field in FIELDS.items() if field.required] == ["host", "token"]
    assert [name for name, field in FIELDS.items() if field.optional] == ["maybe", "folder"]
    assert {name: FIELDS[name].default for name in ("port", "size", "words", "inner", "wait", "derived", "hidden")} == {
        "port": 22,
        "size": "small",
        "words": [],
        "inner": {"depth": 1},
        "wait": 3.0,
        "derived": None,
        "hidden": "h",
    }


def test_help_comes_from_the_field_or_the_docstring():
    assert (FIELDS["port"].help, FIELDS["host"].help, FIELDS["ratio"].help) == (
        "TCP port.",
        "Where it is, in two lines.",
        "",
    )


def test_the_schema_says_all_that_it_can():
    schema = json_schema(Config)
    assert schema["required"] == ["host", "token"]
    assert not schema["additionalProperties"]
    properties = schema["properties"]
    assert properties["port"] == {"type": "integer", "description": "TCP port.", "default": 22}
    assert properties["token"]["pattern"] == "^[a-z][a-z0-9_.+-]*:.+"
    assert properties["level"] == {"enum": [1, 2], "default": 1}
    assert properties["labels"] == {"type": "object", "additionalProperties": {"type": "integer"}, "default": {}}
    assert properties["inner"]["properties"]["depth"]["type"] == "integer"
    assert [kind["type"] for kind in properties["either"]["anyOf"]] == ["string", "object"]
    assert properties["anything"] == {}
    assert "made" not in properties


@pytest.mark.parametrize(
    ("name", "value", "path", "reason"),
    [
        ("port", "22", "port", "expected a whole number, got text"),
        ("port", 0, "port", "must be >= 1: 0"),
        ("folder", "relative", "folder", "must be absolute"),
        ("floor", 30, "floor", "must be below port"),
        ("words", ["a", 1], "words[1]", "expected text, got a number"),
        ("inner", {"dept": 1}, "inner.dept", "unknown key; known are depth"),
        ("token", "hunter2", "token", "is not a secret reference like env:NAME or file:PATH (the text is not shown)"),
    ],
)
def test_one_value_is_checked_with_what_is_known_of_the_others(name: str, value: Any, path: str, reason: str):
    with pytest.raises(InvalidConfig) as failure:
        check_value(Config, name, value, {"port": 30})
    assert (failure.value.path, failure.value.reason) == (path, reason)


def test_what_cannot_be_judged_yet_passes():
    check_value(Config, "floor", 30, {})
    check_value(Config, "host", "h", {"floor": 1})
