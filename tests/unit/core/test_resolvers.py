"""Secret references and the layers of variables."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from sojourn.errors import InvalidArgument, InvalidConfig
from sojourn.plugins import Plugins
from sojourn.resolvers import MAX_SECRET_BYTES, MissingSecret, Redactor, SecretResolver, secrets_in
from sojourn.secrets import Secret
from sojourn.variables import Variables, refuse_reserved


@pytest.fixture
def resolver() -> SecretResolver:
    return SecretResolver(Plugins())


async def test_env_and_file_give_the_value(resolver: SecretResolver, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TOKEN", " as it is \n")
    (tmp_path / "token").write_text("from the file\n")
    assert await resolver.value("env:TOKEN", "p") == " as it is \n"
    assert await resolver.value(f"file:{tmp_path}/token", "p") == "from the file"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await resolver.value("file:~/token", "p") == "from the file"


async def test_only_the_last_line_end_is_taken_off(resolver: SecretResolver, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a\nb\n\n")
    assert await resolver.value(f"file:{tmp_path}/key", "p") == "a\nb\n"


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "not a regular file|Is a directory"),
        (fifo, "not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda path: path.write_bytes(b"x" * (MAX_SECRET_BYTES + 1)), "is larger than"),
    ],
)
async def test_a_file_that_is_none_is_a_missing_secret_and_never_hangs(
    resolver: SecretResolver, tmp_path: Path, make: Any, reason: str
) -> None:
    make(tmp_path / "secret")
    with pytest.raises(MissingSecret, match=reason) as failure:
        await asyncio.wait_for(resolver.value(f"file:{tmp_path}/secret", "where.it.stands"), 5)
    assert failure.value.path == "where.it.stands"
    assert str(tmp_path / "secret") in str(failure.value)


async def test_a_variable_that_is_not_set_and_a_scheme_that_nobody_knows_are_missing(resolver: SecretResolver) -> None:
    with pytest.raises(MissingSecret, match=r"^p: environment variable NOT_SET_AT_ALL .* is not set"):
        await resolver.value("env:NOT_SET_AT_ALL", "p")
    with pytest.raises(MissingSecret, match="nobody resolves vault:x; known are"):
        await resolver.value("vault:x", "p")


@attrs.frozen(kw_only=True)
class Inner:
    key: Secret | None = None


@attrs.frozen(kw_only=True)
class Config:
    token: Secret
    inner: Inner = attrs.field(factory=Inner)
    many: tuple[Secret, ...] = ()
    named: dict[str, Secret] = attrs.field(factory=dict)
    plain: str = "x"


async def test_every_secret_in_a_config_is_found_resolved_and_listed(
    resolver: SecretResolver, monkeypatch: Any
) -> None:
    config = Config(
        token=Secret("env:A"), inner=Inner(key=Secret("env:B")), many=(Secret("env:C"),), named={"k": Secret("env:D")}
    )
    assert [path for path, _ in secrets_in(config, "config")] == [
        "config.token",
        "config.inner.key",
        "config.many[0]",
        "config.named.k",
    ]
    problems = await resolver.missing(config, "config")
    assert len(problems) == 4
    for name in "ABCD":
        monkeypatch.setenv(name, f"value-{name}")
    assert await resolver.missing(config, "config") == []
    resolved = await resolver.resolved(config, "config")
    assert resolved == config, "two secrets are equal when their references are"
    assert [secret.reveal() for _, secret in secrets_in(resolved)] == ["value-A", "value-B", "value-C", "value-D"]
    assert "value-" not in repr(resolved)
    with pytest.raises(InvalidConfig, match="not resolved here"):
        config.token.reveal()


@pytest.mark.parametrize("text", ["", "plain", "envious:", "ENV:X", ":x", "env:a\nb", "my password"])
def test_what_is_no_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidConfig, match="not a secret reference") as failure:
        Secret(text)
    assert not text or text not in str(failure.value)


# -- the redactor -----------------------------------------------------------------------------------------------------


def test_the_redactor_replaces_every_secret_of_eight_characters_or_more() -> None:
    redactor = Redactor(["short", "hunter2-hunter2", "hunter2-hunter2-longer"])
    assert redactor.text("a hunter2-hunter2-longer b hunter2-hunter2 c short") == "a [secret] b [secret] c short"
    assert redactor.output(b"\xff hunter2-hunter2") == b"\xff [secret]"
    assert redactor.finds("xhunter2-hunter2x")
    assert not redactor.finds("short")


def test_the_redactor_strips_json() -> None:
    redactor = Redactor(["hunter2-hunter2"])
    data = {
        "a": "hunter2-hunter2",
        "b": [1, "x hunter2-hunter2", "y"],
        "hunter2-hunter2": 1,
        "c": None,
        "d": {"e": "f"},
    }
    assert redactor.stripped(data) == {"a": None, "b": [1, None, "y"], "c": None, "d": {"e": "f"}}


def test_a_redactor_of_unresolved_secrets_knows_nothing() -> None:
    assert (
        Redactor.of(Config(token=Secret("env:LONG_ENOUGH_NAME"))).text("env:LONG_ENOUGH_NAME") == "env:LONG_ENOUGH_NAME"
    )


# -- variables --------------------------------------------------------------------------------------------------------


def test_later_layers_win() -> None:
    variables = Variables(agent={"A": "1", "B": "1", "C": "1"}, project={"B": "2", "C": "2"}, run={"C": "3"})
    assert variables.over({"A": "0", "Z": "0"}) == {"A": "1", "B": "2", "C": "3", "Z": "0"}


@pytest.mark.parametrize("name", ["SOJOURN_RESOURCE_ID", "", "1A", "A-B", "A=B", "A\n", "\u00c4"])
def test_a_name_that_cannot_be_is_refused_with_its_scope(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^run\.env"):
        refuse_reserved("run.env", {name: "x"})


def test_a_value_with_nul_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidArgument, match="A holds a NUL") as failure:
        refuse_reserved("run.env", {"A": "hunter2\0"})
    assert "hunter2" not in str(failure.value)


def test_values_are_in_no_repr() -> None:
    assert "hunter2" not in repr(Variables(run={"A": "hunter2"}))
