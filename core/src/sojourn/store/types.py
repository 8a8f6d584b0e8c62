"""Column types that keep their promises on every database: aware UTC times, strict JSON, enums as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import TIMESTAMP, Dialect, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

if TYPE_CHECKING:
    from enum import StrEnum

    _Instant = TypeDecorator[datetime]
    _Json = TypeDecorator[Any]
    _Enum = TypeDecorator[StrEnum]
else:
    _Instant = _Json = _Enum = TypeDecorator

__all__ = ["EnumText", "JsonText", "UtcTimestamp"]


class UtcTimestamp(_Instant):
    """A point in time: aware in, aware UTC out.

    SQLite has no such type, and SQLAlchemy's own drops the offset there; we store text of one fixed width, so that its
    order in SQL is the order of time and people can read it.
    """

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use the database's own type where it keeps the instant."""
        return dialect.type_descriptor(String(27) if dialect.name == "sqlite" else TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse naive times, for nobody knows when they are."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"{value!r} is naive; store times with a time zone")
        instant = value.astimezone(UTC)
        return _to_text(instant) if dialect.name == "sqlite" else instant

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give an aware UTC time back."""
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return value.astimezone(UTC)  # type: ignore[no-any-return]  # a datetime by the column's type


class JsonText(_Json):
    """Strict JSON as text, the same bytes on every database; None is SQL NULL; NaN and infinities are refused."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Serialise; raises ValueError for NaN and TypeError for what is not JSON."""
        if value is None:
            return None
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_mapping)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Parse."""
        return None if value is None else json.loads(value)


class EnumText(_Enum):
    """A `StrEnum` as its text, so that a new member needs no migration of a database type."""

    impl = String(32)
    cache_ok = True

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__(32)
        self.enum = enum

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        """Refuse what is no member."""
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """Give the member back."""
        return None if value is None else self.enum(value)


def _to_text(instant: datetime) -> str:
    # isoformat leaves out a zero fraction, and strftime does not pad years below 1000: neither would sort.
    return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
