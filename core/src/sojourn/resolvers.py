"""Resolve secret references just before they are needed, and keep what was resolved out of everything that is stored or shown."""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from sojourn.errors import InvalidConfig
from sojourn.plugins import Plugins
from sojourn.secrets import Secret

__all__ = ["MissingSecret", "Redactor", "SecretResolver", "secrets_in"]

T = TypeVar("T")
Resolve = Callable[[str], "str | Awaitable[str | None] | None"]

MAX_SECRET_BYTES = 1024 * 1024
MIN_REDACTED_CHARS = 8
"""Shorter values occur by chance; replacing each occurrence would garble what is not secret."""


class MissingSecret(InvalidConfig):
    """A secret reference has no value here. ``path`` is where the reference stands."""


def secrets_in(value: Any, path: str = "") -> Iterator[tuple[str, Secret]]:
    """Yield every `Secret` in a config or an env mapping, with its path."""
    if isinstance(value, Secret):
        yield path, value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from secrets_in(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from secrets_in(item, f"{path}[{index}]")


class SecretResolver:
    """Resolves ``env:NAME`` and ``file:PATH``, the host application's resolvers, then the plugins'.

    Args:
        plugins: asked for every scheme that nobody else knows.
        given: of the host application: called with the reference; answers the value, or None when it is not theirs.
    """

    def __init__(self, plugins: Plugins, given: Iterable[Resolve] = ()) -> None:
        self._plugins = plugins
        self._given = tuple(given)

    async def value(self, reference: str, path: str) -> str:
        """Return the value of ``reference``, which stands at ``path``.

        Raises:
            MissingSecret: nobody has it; the message names reference and path, and what to do.
        """
        scheme, _, name = reference.partition(":")
        for resolve in self._given:
            answer = await _asked(resolve, reference, path)
            if answer is not None:
                return answer
        if scheme == "env":
            return _from_environment(name, path)
        if scheme == "file":
            return _from_file(name, path)
        found = await _asked(self._plugins.resolve_secret, reference, path)
        if found is None:
            raise MissingSecret(
                path, f"nobody resolves {reference}; known are env:NAME, file:PATH and installed plugins"
            )
        return found

    async def resolved(self, value: T, path: str = "") -> T:
        """Return ``value`` (a config, an env mapping) with every secret in it resolved.

        Raises:
            MissingSecret: the first one that has no value.
        """
        values = {secret: await self.value(secret.reference, where) for where, secret in secrets_in(value, path)}
        return _replaced(value, values) if values else value

    async def missing(self, value: Any, path: str) -> list[str]:
        """Return one sentence for each secret in ``value`` that has no value here."""
        problems = []
        for where, secret in secrets_in(value, path):
            try:
                await self.value(secret.reference, where)
            except MissingSecret as error:
                problems.append(str(error))
        return problems


async def _asked(resolve: Resolve, reference: str, path: str) -> str | None:
    """Ask foreign code; of what it raises only the type is told, for the text may hold anything, the value too."""
    try:
        answer = resolve(reference)
        if inspect.isawaitable(answer):
            answer = await answer
    except InvalidConfig as error:
        raise MissingSecret(path, f"{reference}: {error.reason}") from None
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no value
        raise MissingSecret(path, f"{reference} could not be resolved: {type(error).__name__}") from None
    if answer is not None and not isinstance(answer, str):
        raise MissingSecret(path, f"the resolver of {reference} answered {type(answer).__name__}, not text")
    return answer


def _from_environment(name: str, path: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise MissingSecret(path, f"environment variable {name} (secret env:{name}) is not set")
    return value


def _from_file(name: str, path: str) -> str:
    try:
        # Non-blocking, so that a FIFO in the place of the file cannot hold us.
        with os.fdopen(os.open(Path(name).expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MissingSecret(path, f"secret file:{name} is not a regular file")
            data = file.read(MAX_SECRET_BYTES + 1)
        if len(data) > MAX_SECRET_BYTES:
            raise MissingSecret(path, f"secret file:{name} is larger than {MAX_SECRET_BYTES} bytes")
        return data.decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise MissingSecret(path, f"secret file:{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MissingSecret(path, f"secret file:{name} is not UTF-8 text") from None


def _replaced(value: Any, values: Mapping[Secret, str]) -> Any:
    if isinstance(value, Secret):
        return Secret(value.reference, value=values[value])
    if attrs.has(type(value)):
        fields = [field for field in attrs.fields(type(value)) if field.init]
        return attrs.evolve(value, **{f.alias: _replaced(getattr(value, f.name), values) for f in fields})
    if isinstance(value, Mapping):
        return {key: _replaced(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, values) for item in value)
    return value


class Redactor:
    """Knows the resolved secrets of one lease and keeps them out of records and error text."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values = sorted({v for v in values if len(v) >= MIN_REDACTED_CHARS}, key=len, reverse=True)

    @classmethod
    def of(cls, *sources: Any) -> Redactor:
        """Return a redactor of all resolved secrets in ``sources`` (configs, env mappings)."""
        found = (secret for source in sources for _, secret in secrets_in(source))
        return cls(secret.reveal() for secret in found if secret.resolved)

    def finds(self, text: str) -> bool:
        """Whether ``text`` holds a secret."""
        return any(value in text for value in self._values)

    def text(self, text: str) -> str:
        """Return ``text`` with every secret replaced."""
        for value in self._values:
            text = text.replace(value, "[secret]")
        return text

    def output(self, data: bytes) -> bytes:
        """Return a command's output with every secret replaced, for a record."""
        for value in self._values:
            data = data.replace(value.encode("utf-8", "surrogateescape"), b"[secret]")
        return data

    def stripped(self, data: Any) -> Any:
        """Return plain JSON data in which every text that holds a secret is None."""
        if isinstance(data, str):
            return None if self.finds(data) else data
        if isinstance(data, Mapping):
            return {key: self.stripped(item) for key, item in data.items() if not self.finds(key)}
        if isinstance(data, list):
            return [self.stripped(item) for item in data]
        return data
