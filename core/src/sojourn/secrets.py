"""Secrets by reference: what is stored is ``env:NAME`` or ``file:PATH``, never a value."""

from __future__ import annotations

import re

import attrs

from sojourn.errors import InvalidConfig

__all__ = ["Secret"]

_REFERENCE = re.compile(r"[a-z][a-z0-9_.+-]*:[^\x00-\x1f]+")


@attrs.frozen(repr=False, eq=True)
class Secret:
    """A reference to a secret and, only while a driver call needs it, its value.

    A driver's config class types a secret field as ``Secret`` (or ``Secret | None``). What people write and what is
    stored is the reference, ``scheme:name``; the core resolves it just before each hook call. Serialising a ``Secret``
    gives its reference; its ``repr`` never shows the value, and two secrets are equal when their references are.

    Args:
        reference: ``env:NAME``, ``file:PATH``, or the scheme of a plugin's ``resolve_secret``.
        version: what the resolver calls this version of the secret, where it knows one.
    """

    reference: str = attrs.field()
    _value: str | None = attrs.field(default=None, eq=False, alias="value")
    version: str | None = attrs.field(default=None, eq=False)

    @reference.validator
    def _check(self, _: object, reference: str) -> None:
        if not _REFERENCE.fullmatch(reference):
            # The text may be a secret typed in the place of its reference, so it is not repeated.
            raise InvalidConfig("", "is not a secret reference like env:NAME or file:PATH (the text is not shown)")

    def reveal(self) -> str:
        """Return the value.

        Raises:
            InvalidConfig: the secret is not resolved here (stored config, or a call that gets no secrets).
        """
        if self._value is None:
            raise InvalidConfig("", f"secret {self.reference} is not resolved here")
        return self._value

    @property
    def resolved(self) -> bool:
        """Whether `reveal` would answer."""
        return self._value is not None

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"
