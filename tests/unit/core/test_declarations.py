"""What a repository declares: found, read, told with its line where it is wrong, compared with what is stored."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tomllib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.declaration_changes import PlanChanged, apply_changes, changed_fields, plan_changes
from sojourn.declaration_schema import schema
from sojourn.declaration_search import find_declaration
from sojourn.declarations import (
    Declaration,
    DeclarationError,
    DeclaredAdapter,
    DeclaredDefaults,
    DeclaredEnvironment,
    DeclaredWorkspace,
    line_of,
    parse_declaration,
    read_declaration,
)
from sojourn.drivers import DriverRegistry
from sojourn.errors import EnvironmentRunError
from sojourn.records import Environment, EnvironmentStatus, LeasePolicy
from sojourn.secrets import Secret
from sojourn.store import Store, environments

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/sojourn-toml.md"


def write(folder: Path, text: str, name: str = "sojourn.toml") -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    return file


# -- lines ------------------------------------------------------------------------------------------------------------

WORDS = st.text("abcdefgh_-", min_size=1, max_size=6)
KEYS = st.one_of(WORDS, st.text(st.characters(codec="ascii", exclude_characters=".[]"), min_size=1, max_size=6))
LEAVES = st.one_of(
    st.integers(-5, 5),
    st.booleans(),
    st.sampled_from(["x = 1", '"q"', "a\nb = 2\n[t]\n", "it's # none", "", "]", "}", "\\"]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def literal(text: str, draw: Any) -> str:
    """A string in one of TOML's four ways."""
    escaped = json.dumps(text).replace("\x7f", "\\u007f")
    ways = [escaped]
    if "\n" in text and "\\" not in text:
        ways += ['"""\n' + text.replace('"', '\\"') + '"""', "'''\n" + text + "'''"] if "'" not in text else []
    elif "'" not in text and text.isprintable():
        ways.append(f"'{text}'")
    return draw(st.sampled_from(ways))


def key_text(key: str, draw: Any) -> str:
    plain = bool(key) and all(sign.isalnum() or sign in "_-" for sign in key) and key.isascii()
    quoted = json.dumps(key).replace("\x7f", "\\u007f")
    return draw(st.sampled_from([key, quoted])) if plain else quoted


class Writer:
    """Writes TOML and remembers the line of each path."""

    def __init__(self, draw: Any) -> None:
        self.text = ""
        self.lines: dict[str, int] = {}
        self.draw = draw

    def say(self, path: str) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def gap(self) -> None:
        self.text += self.draw(st.sampled_from(["", "\n", "# x = 1 [y]\n", "\r\n"]))

    def value(self, path: str, value: Any) -> None:
        if isinstance(value, dict):
            self.text += "{"
            for index, (key, item) in enumerate(value.items()):
                self.text += ", " if index else " "
                self.say(f"{path}.{key}")
                self.text += f"{key_text(key, self.draw)} = "
                self.value(f"{path}.{key}", item)
            self.text += "}"
        elif isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.gap()
                self.say(f"{path}[{index}]")
                self.value(f"{path}[{index}]", item)
                self.text += ","
            self.gap()
            self.text += "]"
        else:
            self.text += literal(value, self.draw) if isinstance(value, str) else json.dumps(value)

    def pairs(self, path: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self.gap()
            where = f"{path}.{key}" if path else key
            self.say(where)
            self.text += f"{key_text(key, self.draw)} = "
            self.value(where, value)
            self.text += self.draw(st.sampled_from(["\n", " # c\n"]))


@st.composite
def documents(draw: Any) -> tuple[str, dict[str, int]]:
    writer = Writer(draw)
    writer.pairs("", draw(st.dictionaries(KEYS, VALUES, max_size=2)))
    tables = draw(st.lists(WORDS.map(lambda word: f"t{word}"), unique=True, max_size=3))
    for table in tables:
        many = draw(st.booleans())
        for index in range(draw(st.integers(1, 2)) if many else 1):
            writer.gap()
            path = f"{table}[{index}]" if many else table
            writer.say(table)
            writer.say(path)
            writer.text += f"[[ {table} ]]\n" if many else f"[{table}]\n"
            writer.pairs(path, draw(st.dictionaries(KEYS, VALUES, max_size=2)))
    return writer.text, writer.lines


@settings(max_examples=150, deadline=None)
@given(documents())
def test_every_path_of_any_toml_is_on_its_line(made: tuple[str, dict[str, int]]):
    text, lines = made
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two spellings met in one key or table
    assert {path: line_of(text, path) for path in lines} == lines


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=10))
def test_no_text_makes_the_search_for_a_line_fail(text: str, path: str):
    line_of(text, path)


def test_the_nearest_table_is_named_where_a_key_is_missing():
    text = 'x = 1\n\n[environments."a.b"]\nenv = { A = "1" }\n\n[environments."a.b".config]\nhost = "h"\n'
    for path, line in (
        ("environments.a.b.config.port", 6),
        ("environments.a.b.config.host", 7),
        ("environments.a.b.env.A", 4),
        ("environments.a.b.driver", 3),
        ("nothing.like.it", None),
    ):
        assert line_of(text, path) == line, path


# -- reading ----------------------------------------------------------------------------------------------------------

WHOLE = """
[defaults]
environment = "build"
mode = "copy"
provision = "make deps"
teardown = "make clean"
timeout_seconds = 600

[environments.build]
driver = "local"
policy = "ephemeral"
max_leases = 2
require_probe = true
description = "for builds"
env = { CI = "1", TOKEN = { secret = "env:CI_TOKEN" } }
config.pass_env = ["LANG"]
[environments.build.timeouts]
acquire = 30

[adapters.agent]
transports = ["ssh"]
[adapters.any]

[workspace]
exclude = ["*.log"]
"""


@pytest.mark.parametrize("name", ["sojourn.toml", "pyproject.toml", "other.toml"])
def test_everything_that_can_be_declared_is_read(tmp_path: Path, name: str):
    text = WHOLE if name != "pyproject.toml" else WHOLE.replace("\n[", "\n[tool.sojourn.") + '[project]\nname = "x"\n'
    found = read_declaration(write(tmp_path, text, name), DriverRegistry())
    assert found.defaults == DeclaredDefaults(
        environment="build", mode="copy", provision="make deps", teardown="make clean", timeout_seconds=600.0
    )
    assert found.environments["build"] == DeclaredEnvironment(
        driver="local",
        config={"pass_env": ["LANG"]},
        env={"CI": "1", "TOKEN": Secret("env:CI_TOKEN")},
        policy=LeasePolicy.EPHEMERAL,
        max_leases=2,
        require_probe=True,
        timeouts={"acquire": 30.0},
        description="for builds",
    )
    assert [(spec.type, spec.transports) for spec in found.adapter_specs()] == [
        ("agent", frozenset({"ssh"})),
        ("any", None),
    ]
    assert found.workspace.exclude == ("*.log",)


X = '[environments.x]\ndriver = "local"\n'
WRONG = [
    ("a = 1\na = 2", "2: is not TOML: Cannot overwrite a value"),
    (X + "[environments.x]\n", "3: is not TOML: Cannot declare ('environments', 'x') twice"),
    ("[a", "1: is not TOML: Expected ']' at the end of a table declaration"),
    ('x = "', "1: is not TOML: Unterminated string"),
    ("\n[defualts]", "2: defualts: unknown key; known are adapters, defaults, environments, workspace"),
    ("defaults = 3", "1: defaults: expected an object, got a number"),
    ('[defaults]\n\nmode = "cpoy"', "3: defaults.mode: "),
    ("[defaults]\ntimeout_seconds = 0", "2: defaults.timeout_seconds: must be > 0.0"),
    ("[defaults]\ntimeout_seconds = 1979-05-27", "2: defaults.timeout_seconds: expected a number, got text"),
    ("[defaults]\ntimeout_seconds = inf", "2: defaults.timeout_seconds: is not a finite number"),
    ("[environments.x]\nconfig = {}", "1: environments.x.driver: is required"),
    (X + "max_leases = 0", "3: environments.x.max_leases: must be a whole number of at least 1"),
    (X + f"max_leases = {2**40}", "3: environments.x.max_leases: must not be above 2147483647"),
    (X + 'max_leases = "2"', "3: environments.x.max_leases: expected a whole number, got text"),
    (X + 'policy = "forever"', "3: environments.x.policy: is not one of ephemeral, "),
    (X + "timeouts = { build = 3 }", "3: environments.x.timeouts.build: unknown; known are acquire, "),
    (X + "timeouts.acquire = -1", "3: environments.x.timeouts.acquire: must be a number of seconds above 0"),
    (X + 'env = { A = "1",\n', "3: is not TOML: "),
    (
        X + "[environments.x.env]\nA = 1",
        '4: environments.x.env.A: expected text or {"secret": "env:NAME"}, got a number',
    ),
    (X + '[environments.x.env]\nA = ""\n"B C" = ""', "5: environments.x.env.B C: environment variable name 'B C' "),
    (X + 'env.SOJOURN_RESOURCE_ID = "r"', "3: environments.x.env.SOJOURN_RESOURCE_ID: is reserved"),
    (X + 'env.A = { secret = "hunter2" }', "3: environments.x.env.A: is not a secret reference"),
    (X + 'config = { root = "relative" }', "3: environments.x.config.root: must be an absolute path"),
    (X + 'config.pass_env = [\n "A",\n "B=hunter2",\n]', "3: environments.x.config.pass_env: "),
    (X + 'config.pass_env = [\n "A",\n 2,\n]', "5: environments.x.config.pass_env[1]: expected text, got a number"),
    (X + "[environments.x.config]\nno_such = 1", "4: environments.x.config.no_such: unknown key"),
    (X + "[[environments.x.config]]\nroot = 1", "3: environments.x.config: expected an object, got a list"),
    ('[environments."a b"]\ndriver = "local"', "1: environments.a b: a name is up to 63 letters"),
    ('[environments.local]\ndriver = "ssh"', "2: environments.local.driver: the environment called local runs on"),
    ("[adapters.x]\ntransports = 'ssh'", "2: adapters.x.transports: expected a list, got text"),
    ("[workspace]\nexclude = [\n'a',\n1]", "4: workspace.exclude[1]: expected text, got a number"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_is_wrong_is_told_with_file_line_and_path(tmp_path: Path, text: str, told: str):
    file = write(tmp_path, text)
    with pytest.raises(DeclarationError) as failure:
        read_declaration(file, DriverRegistry())
    assert str(failure.value).startswith(f"{file}:{told}")
    assert "hunter2" not in str(failure.value)
    assert (failure.value.file, str(failure.value.line)) == (file, told.partition(":")[0])


def test_in_a_pyproject_the_whole_path_is_told(tmp_path: Path):
    file = write(tmp_path, '[project]\nname = "x"\n[tool.sojourn.environments.x]\ndriver = 3\n', "pyproject.toml")
    with pytest.raises(DeclarationError, match=r":4: tool\.sojourn\.environments\.x\.driver: expected text"):
        parse_declaration(file)
    with pytest.raises(DeclarationError, match=r":1: tool\.sojourn: expected an object"):
        parse_declaration(write(tmp_path, "tool.sojourn = 3", "pyproject.toml"))
    assert parse_declaration(write(tmp_path, "tool = 3", "pyproject.toml")).declaration == Declaration()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"# " + b"x" * 2**20, "is larger than"),
        (b"a = 1\n\xff", ":2: is not UTF-8 text"),
        (b"a = " + b"[" * 20_000, "too deep"),
        (b"a = " + b"9" * 20_000, "a number too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, data: bytes, told: str):
    file = tmp_path / "sojourn.toml"
    file.write_bytes(data)
    with pytest.raises(DeclarationError, match=told):
        parse_declaration(file)
    with pytest.raises(DeclarationError, match="cannot be read: No such file"):
        parse_declaration(tmp_path / "missing.toml")


def test_a_driver_that_is_not_there_is_told_with_its_place_unless_that_does_not_matter(tmp_path: Path):
    file = write(tmp_path, '[environments.x]\n\ndriver = "nowhere"\n')
    with pytest.raises(EnvironmentRunError, match="no driver named 'nowhere'") as failure:
        read_declaration(file, DriverRegistry())
    assert failure.value.__notes__ == [f"named in {file}:3: environments.x.driver"]
    parse_declaration(file).check(DriverRegistry(), missing_drivers="ignore")


# -- finding ----------------------------------------------------------------------------------------------------------


def test_the_nearest_declaration_holds_and_a_repository_is_a_border(tmp_path: Path):
    inner = tmp_path / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    write(tmp_path, "")
    assert find_declaration(inner) == tmp_path / "sojourn.toml"
    (tmp_path / "repository" / ".git").mkdir()
    assert find_declaration(inner) is None
    write(tmp_path / "repository", "[tool.sojourn]\n", "pyproject.toml")
    write(inner.parent, "[tool.other]\n", "pyproject.toml")
    assert find_declaration(inner) == tmp_path / "repository/pyproject.toml"
    write(tmp_path / "repository", "")
    assert find_declaration(inner) == tmp_path / "repository/sojourn.toml"
    (inner / "sojourn.toml").mkdir()
    assert find_declaration(inner) == tmp_path / "repository/sojourn.toml"


def test_a_broken_pyproject_is_passed_over_unless_ours_is_in_it(tmp_path: Path):
    file = write(tmp_path, "[project]\nname = ", "pyproject.toml")
    (tmp_path / ".git").mkdir()
    assert find_declaration(tmp_path) is None
    write(tmp_path, "[project]\nname =\n[tool.sojourn.defaults]\n", "pyproject.toml")
    assert find_declaration(tmp_path) == file
    with pytest.raises(DeclarationError, match=":2: is not TOML"):
        parse_declaration(file)


def test_what_lies_where_everybody_may_write_is_not_ours(tmp_path: Path):
    inner = tmp_path / "inner"
    inner.mkdir()
    write(tmp_path, "")
    tmp_path.chmod(0o1777)
    assert find_declaration(inner) is None
    assert find_declaration(tmp_path) == tmp_path / "sojourn.toml"


# -- comparing --------------------------------------------------------------------------------------------------------


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def stored(**fields: Any) -> Environment:
    values: dict[str, Any] = {
        "id": "env_1",
        "tenant": "default",
        "name": "build",
        "driver": "local",
        "status": EnvironmentStatus.ACTIVE,
        "config": {},
        "config_version": 1,
        "env": {},
        "policy": LeasePolicy.EPHEMERAL,
        "max_leases": None,
        "require_probe": False,
        "timeouts": {},
        "description": "",
        "created_at": LONG_AGO,
        "updated_at": LONG_AGO,
    }
    return Environment(**values | fields)


def test_a_plan_names_what_changes_field_by_field():
    declared = DeclaredEnvironment(
        driver="local",
        config={"root": "/b", "pass_env": ["A"]},
        env={"T": Secret("env:NEW")},
        timeouts={"acquire": 5.0},
    )
    before = stored(
        config={"root": "/a", "pass_env": ["A"], "path": "/bin"},
        env={"T": Secret("env:OLD"), "U": "1"},
        timeouts={"acquire": 5},
        status=EnvironmentStatus.ARCHIVED,
    )
    (change,) = plan_changes(
        Declaration(environments={"build": declared}), [before, stored(name="other")], {"local": 2}
    )
    assert change.action == "update"
    assert change.fields == {
        "config.path": ("/bin", None),
        "config.root": ("/a", "/b"),
        "env.T": ({"secret": "env:OLD"}, {"secret": "env:NEW"}),
        "env.U": ("1", None),
        "config_version": (1, 2),
        "status": ("archived", "active"),
    }
    same = DeclaredEnvironment(driver="local")
    plan = plan_changes(Declaration(environments={"build": same, "new": same}), [stored()])
    assert [(change.name, change.action, dict(change.fields)) for change in plan] == [
        ("build", "unchanged", {}),
        ("new", "create", {}),
    ]


def test_what_was_planned_is_stored_at_once_or_not_at_all(tmp_path: Path):
    declared = Declaration(
        environments={
            "build": DeclaredEnvironment(driver="local", config={"root": "/b"}),
            "new": DeclaredEnvironment(driver="local", env={"T": Secret("env:T")}),
        }
    )
    versions = {"local": 3}

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            store = await Store.open(tmp_path / "db")
            stack.push_async_callback(store.close)
            await store.run(environments.insert, tenant="default", name="build", driver="local", config={})
            everything = partial(store.read, environments.list_all, "default", include_archived=True)
            planned = plan_changes(declared, await everything(), versions)
            assert [(change.name, change.action) for change in planned] == [("build", "update"), ("new", "create")]
            await store.run(environments.insert, tenant="default", name="new", driver="local", config={})
            with pytest.raises(PlanChanged, match="nothing was applied"):
                await store.run(apply_changes, "default", declared, planned, versions)
            assert [found.config for found in await everything()] == [{}, {}]
            planned = plan_changes(declared, await everything(), versions)
            await store.run(apply_changes, "default", declared, planned, versions)
            build, new = await everything()
            assert (build.config, build.config_version, new.env) == ({"root": "/b"}, 3, {"T": Secret("env:T")})
            assert {c.action for c in plan_changes(declared, await everything(), versions)} == {"unchanged"}

    asyncio.run(work())


def test_values_of_different_kinds_are_different():
    assert dict(changed_fields({"a": 1, "b": 1, "c": None}, {"a": True, "b": 1.0})) == {
        "a": (1, True),
        "c": (None, None),
    }


# -- for editors, and the page -----------------------------------------------------------------------------------------


def test_the_schema_knows_every_key_and_the_drivers_configs():
    whole = schema([found for found in DriverRegistry().listing() if hasattr(found, "info")])
    json.dumps(whole)
    environment = whole["properties"]["environments"]["additionalProperties"]
    assert set(environment["properties"]) == {field.name for field in attrs.fields(DeclaredEnvironment)}
    assert environment["required"] == ["driver"]
    (local,) = [rule for rule in environment["allOf"] if rule["if"]["properties"]["driver"]["const"] == "local"]
    assert local["then"]["properties"]["config"]["properties"]["pass_env"]["items"] == {"type": "string"}
    assert whole["properties"]["defaults"]["properties"]["mode"]["enum"] == ["in_place", "copy", "git_worktree"]
    assert not whole["additionalProperties"]


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("[defaults]", DeclaredDefaults),
        ("[environments.NAME]", DeclaredEnvironment),
        ("[adapters.TYPE]", DeclaredAdapter),
        ("[workspace]", DeclaredWorkspace),
    ],
)
def test_the_page_lists_every_key(heading: str, cls: type[Any]):
    section = PAGE.read_text("utf-8").split(f"\n## `{heading}`\n")[1].split("\n## ")[0]
    listed = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert listed == [field.name for field in attrs.fields(cls)]
