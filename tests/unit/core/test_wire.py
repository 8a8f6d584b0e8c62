"""The converter: exact types, no guessing, a path and a reason for everything that does not fit."""

from __future__ import annotations

import json
import traceback
import types
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import pytest
from attrs.validators import in_
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import models, realization_records, wire
from sojourn.models import CommandOutcome, Outcome, RunContext, SshTarget, Target
from sojourn.secrets import Secret
from sojourn.workspace.worktrees import Worktree


@attrs.frozen(kw_only=True)
class Inner:
    port: int = 1


class Color(StrEnum):
    RED = "red"


@attrs.frozen(kw_only=True)
class Everything:
    text: str = "x"
    whole: int = 1
    number: float = 1.0
    flag: bool = False
    words: tuple[str, ...] = ()
    table: Mapping[str, Any] = attrs.field(factory=dict)
    typed: Mapping[str, int] = attrs.field(factory=dict)
    inner: Inner = attrs.field(factory=Inner)
    inners: tuple[Inner, ...] = ()
    maybe: int | None = None
    time: datetime | None = None
    span: timedelta | None = None
    data: bytes = b""
    color: Color = Color.RED
    choice: Literal["a", "b"] = "a"
    token: Secret | None = None
    env: Mapping[str, str | Secret] = attrs.field(factory=dict)
    checked: int = attrs.field(default=1, validator=in_([1, 2]))


REFUSED: list[tuple[str, Any, str]] = [
    ("flag", "false", "expected true or false, got text"),
    ("flag", 0, "expected true or false"),
    ("whole", "22", "expected a whole number, got text"),
    ("whole", 22.9, "expected a whole number"),
    ("whole", 22.0, "expected a whole number"),
    ("whole", True, "expected a whole number, got true/false"),
    ("number", "1.5", "expected a number"),
    ("number", True, "expected a number"),
    ("number", float("nan"), "not a finite number"),
    ("number", float("inf"), "not a finite number"),
    ("text", 1, "expected text"),
    ("text", None, "expected text, got nothing"),
    ("text", b"x", "expected text"),
    ("words", "abc", "expected a list, got text"),
    ("words", {"a": 1}, "expected a list, got an object"),
    ("words", None, "expected a list"),
    ("maybe", "", "expected a whole number"),
    ("time", "2026-01-01T00:00:00", "without a time zone"),
    ("time", 0, "expected a time"),
    ("span", "1", "expected a number"),
    ("span", True, "expected a number"),
    ("data", "no base64!", "not base64"),
    ("data", b"x", "expected base64 text"),
    ("color", "blue", "not one of red"),
    ("color", 1, "expected text"),
    ("choice", "c", "is not one of a, b"),
    ("token", {"secret": "env:X"}, "expected a secret reference"),
    ("token", "plain", "not a secret reference"),
    ("env", {"A": 1}, "expected text or"),
    ("env", {"A": {"secret": "plain"}}, "not a secret reference"),
    ("table", {"a": b"x"}, "bytes is not JSON"),
    ("table", {"a": datetime.now(UTC)}, "datetime is not JSON"),
    ("table", {"a": float("nan")}, "not a finite number"),
    ("table", {1: "x"}, "JSON keys are text"),
    ("table", [], "expected an object"),
    ("inner", [], "expected an object"),
    ("inner", None, "expected an object"),
    ("checked", 3, "must be in"),
]


@pytest.mark.parametrize(("field", "value", "reason"), REFUSED)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """Each trap of cattrs' defaults is an error that names the field and never repeats the value."""
    with pytest.raises(wire.WireError, match=reason) as failure:
        wire.load(Everything, {field: value}, path="config")
    assert failure.value.path.startswith(f"config.{field}")
    assert failure.value.__cause__ is None


def test_the_path_leads_to_the_innermost_culprit() -> None:
    for data, path in (
        ({"inner": {"port": "x"}}, "inner.port"),
        ({"inners": [{}, {"port": "x"}]}, "inners[1].port"),
        ({"words": ["a", 1]}, "words[1]"),
        ({"typed": {"key": "x"}}, "typed.key"),
        ({"table": {"a": [{"b": b""}]}}, "table.a[0].b"),
    ):
        with pytest.raises(wire.WireError) as failure:
            wire.load(Everything, data)
        assert failure.value.path == path


def test_a_refused_value_is_not_in_the_traceback() -> None:
    typed = "-".join(["hunter2"] * 2)
    for data in ({"token": typed}, {"env": {"A": {"secret": typed}}}, {"whole": typed}, {"choice": typed}):
        with pytest.raises(wire.WireError) as failure:
            wire.load(Everything, data)
        assert typed not in "".join(traceback.format_exception(failure.value))


def test_unknown_keys_are_refused_in_what_people_write_and_ignored_in_what_is_stored() -> None:
    with pytest.raises(wire.WireError, match="unknown key; known are") as failure:
        wire.load(Inner, {"prot": 1}, path="config")
    assert failure.value.path == "config.prot"
    assert wire.load(Inner, {"prot": 1, "port": 2}, unknown="ignore") == Inner(port=2)
    with pytest.raises(wire.WireError):
        wire.load(Everything, {"inner": {"prot": 1}})


def test_a_missing_key_is_required() -> None:
    with pytest.raises(wire.WireError, match="is required") as failure:
        wire.load(SshTarget, {"host": "h", "username": "u", "cwd": None})
    assert failure.value.path == "port"


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, {"a": object()}, float("nan"), [float("-inf")], {1, 2}, b"x", datetime.now(UTC)],
)
def test_only_json_is_json(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.checked_json(value)


def test_data_that_is_nested_without_end_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(wire.WireError, match="nested deeper"):
        wire.checked_json(loop)


def test_dumping_refuses_a_naive_time_and_never_dumps_a_secrets_value() -> None:
    with pytest.raises(wire.WireError, match="without a time zone"):
        wire.dump(CommandOutcome(outcome=Outcome.EXITED, started_at=datetime(2026, 1, 1)))
    dumped = wire.dump(Everything(token=Secret("env:X", value="hunter2"), env={"A": Secret("env:Y", value="hunter2")}))
    assert dumped["token"] == "env:X"
    assert dumped["env"] == {"A": {"secret": "env:Y"}}


def test_enum_members_stay_enum_members() -> None:
    outcome = wire.load(CommandOutcome, wire.dump(CommandOutcome(outcome=Outcome.LOST)))
    assert outcome.outcome is Outcome.LOST
    assert wire.load(Everything, {"color": "red"}).color is Color.RED
    assert type(wire.dump(outcome)["outcome"]) is str


def test_times_are_brought_to_utc() -> None:
    time = wire.load(Everything, {"time": "2026-01-01T02:00:00+02:00"}).time
    assert time == datetime(2026, 1, 1, tzinfo=UTC)
    assert time is not None
    assert time.tzinfo is UTC


def test_an_agent_id_is_left_out_when_there_is_none() -> None:
    """It has no default in Python, so that every call site thinks about it."""
    context = RunContext(tenant="t", run_id=None, agent_id=None)
    assert "agent_id" not in wire.dump(context)
    assert wire.load(RunContext, wire.dump(context)) == context
    with pytest.raises(TypeError):
        RunContext(tenant="t", run_id=None)  # type: ignore[call-arg]


# -- every record that crosses the border, there and back -------------------------------------------------------------

RECORDS = [
    models.RunContext,
    models.Actor,
    models.Diagnostic,
    models.ProbeReport,
    models.AcquireResult,
    models.RealizeResult,
    models.CommandOutcome,
    models.ReleaseReceipt,
    models.InventoryItem,
    models.ConnectionInfo,
    models.ExecuteResult,
    realization_records.Workspace,
    realization_records.Overlay,
    realization_records.ProvisionRecord,
    realization_records.RealizationRequest,
    realization_records.RealizationRecord,
    Worktree,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=12),
    int: st.integers(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bytes: st.binary(max_size=12),
    type(None): st.none(),
    Any: json_values,
    datetime: st.datetimes(timezones=st.just(UTC)),
    timedelta: st.timedeltas(timedelta(0), timedelta(days=1000)),
}


def values(kind: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    if kind in PLAIN:
        return PLAIN[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([values(argument, depth) for argument in arguments])
    if origin is tuple:
        return st.just(()) if depth > 1 else st.lists(values(arguments[0], depth + 1), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(max_size=5), values(arguments[1], depth), max_size=3)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    return records(kind, depth)


def records(cls: type[Any], depth: int = 0) -> st.SearchStrategy[Any]:
    if cls is not None:
        attrs.resolve_types(cls)
    fields = {field.alias: values(field.type, depth) for field in attrs.fields(cls)}
    if "version" in fields:
        fields["version"] = st.just(1)
    return st.builds(cls, **fields)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_record_comes_back_as_it_went(cls: type[Any], data: st.DataObject) -> None:
    """Through JSON text, and also with a key that a newer minor version may send."""
    record = data.draw(records(cls))
    text = json.dumps(wire.dump(record), allow_nan=False)
    assert wire.load(cls, json.loads(text)) == record
    newer = {**json.loads(text), "a_key_of_a_newer_version": [1]}
    assert wire.load(cls, newer, unknown="ignore") == record


TARGETS: list[Any] = [
    models.LocalTarget(cwd=None),
    models.SshTarget(host="h", port=22, username="u", cwd="/w", private_key="env:K"),
    models.SandboxTarget(provider="p", cwd="/w"),
    models.CustomTarget(transport="pigeon", cwd=None, facts={"loft": 3}),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.transport)
def test_a_target_is_told_by_its_transport(target: Any) -> None:
    assert wire.load(Target, wire.dump(target)) == target  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [None, [], {}, {"transport": 1}, {"transport": "ssh", "host": "h"}])
def test_a_target_without_its_facts_is_refused(data: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.load(Target, data)  # type: ignore[arg-type]
