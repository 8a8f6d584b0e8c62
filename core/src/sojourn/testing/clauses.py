"""What a clause of the contract is: one test with a level, a group, what it needs, and a sentence that is true when it passes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import attrs
import pytest

if TYPE_CHECKING:
    from sojourn.testing.kit import Kit

__all__ = ["Clause", "Level", "clause", "clauses_of"]

ATTRIBUTE = "sojourn_clause"


class Level(StrEnum):
    """How far a driver goes; a driver conforms to a level when all clauses up to it pass."""

    L1 = "L1"
    """Core: loads, acquires, tells where it is, releases."""
    L2 = "L2"
    """Execution: commands, streams, stopping."""
    L4 = "L4"
    """Recovery: after a crash another process finds and ends everything."""
    L5 = "L5"
    """Security: secrets stay where they belong."""
    L6 = "L6"
    """Load: much data, many calls, flat memory."""


@attrs.frozen(kw_only=True)
class Clause:
    """One clause of the contract.

    Args:
        name: of the test method.
        group: the module it is in.
        level: which level it belongs to.
        needs: capabilities (``parallel``), optional hooks (``hook:resume``), looks by the back door (``door:processes``), facts
            of `driver_info` (``info:fencing``) and attributes of the contract class (``given:unusable_config``) without which
            it is skipped.
        sentence: what is true when it passes.
    """

    name: str
    group: str
    level: Level
    needs: tuple[str, ...]
    sentence: str


_Body = Callable[[Any, "Kit"], Awaitable[None]]


def clause(level: Level, *needs: str) -> Callable[[_Body], Callable[[Any, Kit], None]]:
    """Make a test of an ``async def`` clause; it runs in an event loop of its own, and everything it leaves behind is a failure."""

    def mark(body: _Body) -> Callable[[Any, Kit], None]:
        name = body.__name__

        def test(self: Any, kit: Kit) -> None:
            kit.run(needs, lambda: body(self, kit))

        # Not functools.wraps: the test must not look like a coroutine function, by any way of looking.
        test.__name__, test.__qualname__, test.__doc__ = name, body.__qualname__, body.__doc__
        test.__module__ = body.__module__
        sentence = " ".join(inspect.cleandoc(body.__doc__ or "").split())
        group = body.__module__.rpartition(".")[2]
        test.pytestmark = [pytest.mark.sojourn_clause(level=level.value, group=group)]  # type: ignore[attr-defined]
        setattr(test, ATTRIBUTE, Clause(name=name, group=group, level=level, needs=needs, sentence=sentence))
        return test

    return mark


def clauses_of(cls: type) -> Iterator[Clause]:
    """Yield the clauses of a contract class in the order in which they are written."""
    for base in cls.__mro__:
        for member in vars(base).values():
            found = getattr(member, ATTRIBUTE, None)
            if found is not None:
                yield found
