"""The one converter between records and JSON: exact types, no guessing, errors with a path.

cattrs' defaults turn ``"false"`` into True, ``22.9`` into 22, ``"abc"`` into ``('a', 'b', 'c')``; here each is an error.
Times are aware ISO 8601 text in UTC, durations seconds, bytes base64, secrets their reference.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, partial
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)

from sojourn.errors import InvalidConfig, SojournError
from sojourn.models import CustomTarget, LocalTarget, RunContext, SandboxTarget, SshTarget, Target
from sojourn.secrets import Secret

__all__ = ["WireError", "checked_json", "dump", "load", "plain_json_bytes"]

T = TypeVar("T")
Unknown = Literal["refuse", "ignore"]

MAX_DEPTH = 50
_TARGETS: dict[str, type[Any]] = {cls.transport: cls for cls in (LocalTarget, SshTarget, SandboxTarget)}
_ATTRS_VALIDATOR = re.compile(r"'(\w+)' (must .*)", re.DOTALL)


class WireError(SojournError):
    """Data does not fit its record. ``path`` is where (``""`` is the whole), ``reason`` why; neither holds a secret's value."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


def dump(value: Any) -> Any:
    """Return ``value`` as plain JSON data. A `Secret` becomes its reference.

    Raises:
        WireError: something in it is not JSON-able.
    """
    return checked_json(_converter("ignore").unstructure(value))


def load(cls: type[T], data: Any, *, path: str = "", unknown: Unknown = "refuse") -> T:
    """Build a ``cls`` from plain JSON data.

    Args:
        cls: an attrs class or any type a record's field may have.
        data: what ``dump`` gives, or what a person wrote.
        path: what ``data`` is called in errors, e.g. ``environments.build.config``.
        unknown: whether unknown keys are refused (what people write) or ignored (stored rows, newer minor versions).

    Raises:
        WireError: naming the first path that does not fit and why.
    """
    try:
        return _converter(unknown).structure(data, cls)
    except Exception as error:  # noqa: BLE001 - every failure to build becomes one error with a path
        where, reason = _first_reason(error)
        # `from None`: the original's traceback text would repeat the values.
        raise WireError(".".join(part for part in (path, where) if part), reason) from None


def checked_json(value: Any, path: str = "", depth: int = 0) -> Any:
    """Return a plain copy of ``value`` (dict, list, str, int, float, bool, None).

    Raises:
        WireError: another type, a key that is not text, NaN or infinity, or more than 50 levels.
    """
    if depth > MAX_DEPTH:
        raise WireError(path, f"is nested deeper than {MAX_DEPTH} levels")
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, StrEnum):
        return value.value
    if type(value) is float:
        if not math.isfinite(value):
            raise WireError(path, "is not a finite number")
        return value
    if isinstance(value, Mapping):
        return {_key(key, path): checked_json(item, _join(path, str(key)), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [checked_json(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise WireError(path, f"{type(value).__name__} is not JSON")


def plain_json_bytes(value: Any) -> bytes:
    """Return the canonical JSON text of plain data: sorted keys, no spaces, UTF-8. For fingerprints and size limits."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("utf-8", "surrogatepass")


def _key(key: Any, path: str) -> str:
    if type(key) is not str:
        raise WireError(path, f"has a key of type {type(key).__name__}; JSON keys are text")
    return key


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# -- errors: the innermost reason, and the way to it ------------------------------------------------------------------


def _first_reason(error: BaseException) -> tuple[str, str]:
    if isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        where, reason = _first_reason(inner)
        return _join_parts(_step(inner), where), reason
    if isinstance(error, ForbiddenExtraKeysError):
        unknown = sorted(error.extra_fields)[0]
        known = ", ".join(sorted(a.alias for a in attrs.fields(error.cl))) if attrs.has(error.cl) else ""
        return unknown, "unknown key" + (f"; known are {known}" if known else "")
    if isinstance(error, WireError | InvalidConfig):
        return error.path, error.reason
    if isinstance(error, KeyError):
        # cattrs says a missing key by a bare KeyError; the note of its attribute is the path already.
        return "", "is required"
    # attrs' own validators put the attribute and the value behind the sentence.
    sentence = str(error.args[0]) if error.args else type(error).__name__
    named = _ATTRS_VALIDATOR.match(sentence)
    if named and isinstance(error, ValueError | TypeError):
        return named[1], named[2]
    return _validated_field(error), sentence


def _validated_field(error: BaseException) -> str:
    """Return the field whose validator raised, or nothing: attrs hands it over, and a sentence need not repeat its name."""
    step = error.__traceback__
    while step is not None and not step.tb_frame.f_code.co_filename.startswith("<attrs generated"):
        step = step.tb_next
    validator = step.tb_next if step is not None else None
    found = validator.tb_frame.f_locals.values() if validator is not None else ()
    return next((value.name for value in found if isinstance(value, attrs.Attribute)), "")


def _step(error: BaseException) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]" if isinstance(note.index, int) else str(note.index)
    return ""


def _join_parts(left: str, right: str) -> str:
    if not left or not right or right.startswith("["):
        return left + right
    return f"{left}.{right}"


# -- the converter ----------------------------------------------------------------------------------------------------


def _expect(kind: str, value: Any) -> ValueError:
    return ValueError(f"expected {kind}, got {_described(value)}")


def _described(value: Any) -> str:
    names = {type(None): "nothing", bool: "true/false", str: "text", dict: "an object", list: "a list"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _exact(cls: type[Any], kind: str) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise _expect(kind, value)
        return value

    return structure


def _enum(value: Any, cls: type[StrEnum]) -> StrEnum:
    if not isinstance(value, str):
        raise _expect("text", value)
    try:
        return cls(value)
    except ValueError:
        raise ValueError(f"is not one of {', '.join(cls)}") from None


def _is_literal(cls: Any) -> bool:
    return get_origin(cls) is Literal


def _literal(value: Any, cls: Any) -> Any:
    # cattrs' own sentence repeats the value, which may be a secret in the wrong place.
    if not any(type(value) is type(choice) and value == choice for choice in get_args(cls)):
        raise ValueError(f"is not one of {', '.join(str(choice) for choice in get_args(cls))}")
    return value


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise _expect("a number", value)
    if not math.isfinite(value):
        raise ValueError("is not a finite number")
    return float(value)


def _datetime(value: Any, _: Any) -> datetime:
    if type(value) is not str:
        raise _expect("a time in ISO 8601", value)
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a time without a time zone")
    return time.astimezone(UTC)


def _dump_datetime(value: datetime) -> str:
    if value.tzinfo is None:
        raise WireError("", "a time without a time zone")
    return value.astimezone(UTC).isoformat()


def _bytes(value: Any, _: Any) -> bytes:
    if type(value) is not str:
        raise _expect("base64 text", value)
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError("is not base64") from None


def _secret(value: Any, _: Any) -> Secret:
    if type(value) is not str:
        raise _expect("a secret reference like env:NAME or file:PATH", value)
    return Secret(value)


def _text_or_secret(value: Any, _: Any) -> str | Secret:
    if type(value) is str:
        return value
    if isinstance(value, Mapping) and set(value) == {"secret"}:
        return _secret(value["secret"], None)
    raise _expect('text or {"secret": "env:NAME"}', value)


def _target(value: Any, _: Any) -> Target:
    if not isinstance(value, Mapping):
        raise _expect("an object", value)
    transport = value.get("transport")
    if type(transport) is not str:
        raise ValueError("transport: is required")
    cls = _TARGETS.get(transport)
    if cls is None:
        return load(CustomTarget, value, unknown="ignore")
    return cast("Target", load(cls, {k: v for k, v in value.items() if k != "transport"}, unknown="ignore"))


@cache
def _converter(unknown: Unknown) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=unknown == "refuse", detailed_validation=True, use_alias=True)
    for cls, kind in ((str, "text"), (int, "a whole number"), (bool, "true or false")):
        converter.register_structure_hook(cls, _exact(cls, kind))
    # By its own class: the hook for text would take it, because a StrEnum is one.
    converter.register_structure_hook(StrEnum, _enum)
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(datetime, _datetime)
    converter.register_unstructure_hook(datetime, _dump_datetime)
    converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=_float(value, None)))
    converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
    converter.register_structure_hook(bytes, _bytes)
    converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode("ascii"))
    converter.register_structure_hook(Secret, _secret)
    converter.register_unstructure_hook(Secret, lambda value: value.reference)
    converter.register_structure_hook(str | Secret, _text_or_secret)
    converter.register_unstructure_hook(str | Secret, _dump_text_or_secret)
    converter.register_structure_hook(Target, _target)
    converter.register_unstructure_hook(RunContext, _dump_run_context)
    for target in _TARGETS.values():
        converter.register_unstructure_hook(target, _dump_target)
    converter.register_structure_hook_factory(attrs.has, partial(_record_hook, converter))
    _read_agent_id_leniently(converter)
    converter.register_structure_hook_factory(_is_sequence, partial(_sequence_hook, converter))
    converter.register_structure_hook_factory(_is_mapping, partial(_mapping_hook, converter))
    return converter


def _record_hook(converter: cattrs.Converter, cls: type[Any]) -> Any:
    build = converter.gen_structure_attrs_fromdict(cls)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _expect("an object", value)
        return build(value, cls)

    return structure


def _is_sequence(cls: Any) -> bool:
    if get_origin(cls) is tuple:
        return get_args(cls)[1:] == (Ellipsis,)
    return get_origin(cls) in (list, frozenset)


def _sequence_hook(converter: cattrs.Converter, cls: Any) -> Any:
    origin, element = get_origin(cls), get_args(cls)[0]

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _expect("a list", value)
        return origin(_item(converter, element, item, f"[{index}]") for index, item in enumerate(value))

    return structure


def _is_mapping(cls: Any) -> bool:
    return get_origin(cls) in (dict, Mapping)


def _mapping_hook(converter: cattrs.Converter, cls: Any) -> Any:
    _, element = get_args(cls)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _expect("an object", value)
        if element is Any:
            return checked_json(value)
        return {_key(key, ""): _item(converter, element, item, key) for key, item in value.items()}

    return structure


def _item(converter: cattrs.Converter, element: Any, value: Any, step: str) -> Any:
    try:
        return converter.structure(value, element)
    except Exception as error:  # noqa: BLE001 - gets its place in the path and goes on
        where, reason = _first_reason(error)
        raise WireError(_join_parts(step, where), reason) from None


def _dump_text_or_secret(value: str | Secret) -> Any:
    return {"secret": value.reference} if isinstance(value, Secret) else value


def _read_agent_id_leniently(converter: cattrs.Converter) -> None:
    """`agent_id` has no default in Python, so that every call site thinks about it, and is left out on the wire when None."""
    build = _record_hook(converter, RunContext)

    def structure(value: Any, cls: Any) -> Any:
        return build({"agent_id": None, **value} if isinstance(value, Mapping) else value, cls)

    converter.register_structure_hook(RunContext, structure)


def _dump_run_context(value: RunContext) -> dict[str, Any]:
    fields = {name: item for name, item in attrs.asdict(value).items() if name != "trace"}
    if value.agent_id is None:
        del fields["agent_id"]
    return {**fields, "trace": dict(value.trace)}


def _dump_target(value: Any) -> dict[str, Any]:
    return {"transport": value.transport, **attrs.asdict(value)}
