"""The guard against tests that were removed: a contract is kept whole, or what is missing is said with a link."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator

from sojourn.testing.clauses import clauses_of
from sojourn.testing.contract import DriverContract

__all__ = ["HIDING_MARKS", "problems_of", "problems_of_marks"]

HIDING_MARKS = ("skip", "skipif", "xfail")
_MACHINERY = ("kit",)


def problems_of(cls: type[DriverContract]) -> Iterator[str]:
    """Yield one sentence for everything in a contract class that would hide a clause or pretend to."""
    expected = cls.expected_failures
    known = {clause.name for clause in clauses_of(DriverContract)}
    for name in sorted(set(expected) - known):
        yield f"expected_failures names {name}, and there is no such clause"
    for name, link in sorted(expected.items()):
        if not str(link).startswith(("http://", "https://")):
            yield f"expected_failures[{name!r}] is {link!r}; it has to be a link to where the failure is followed up"
    for name in (*sorted(known - set(expected)), *_MACHINERY):
        own = inspect.getattr_static(cls, name, None)
        if own is not inspect.getattr_static(DriverContract, name):
            what = "removes" if own is None else "overrides"
            yield f"{what} {name}; name it in expected_failures with a link if it has to fail"


def problems_of_marks(
    cls: type[DriverContract], name: str, on_clause: Iterable[str], above: Iterable[str]
) -> Iterator[str]:
    """Yield one sentence for every mark that hides a clause.

    Args:
        cls: the contract class.
        name: of the clause.
        on_clause: names of the marks on the test itself.
        above: names of the marks on class and module. Skipping all of a class there is honest, expecting it to fail is not.
    """
    if name in cls.expected_failures:
        return
    hidden = [mark for mark in on_clause if mark in HIDING_MARKS] + [mark for mark in above if mark == "xfail"]
    for mark in hidden:
        yield f"marks {name} with {mark}; name it in expected_failures with a link if it has to fail"
