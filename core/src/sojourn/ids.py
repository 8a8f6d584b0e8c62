"""Names for rows and resources: sortable by time, unguessable enough, safe in URLs, paths and container names."""

from __future__ import annotations

import secrets
import time

__all__ = ["new_id", "new_resource_id"]

# Crockford's base 32: no i, l, o, u, and its order is ASCII's, so that ids sort like the numbers in them.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARACTERS = 10
_RANDOM_CHARACTERS = 12


def new_id(prefix: str) -> str:
    """Return a new id like ``lease_01hw3k9x2m4t7q8r9s0v1w``: milliseconds since 1970, then 60 random bits.

    Args:
        prefix: what kind of thing it names, in lower case.
    """
    return f"{prefix}_{_tail()}"


def new_resource_id() -> str:
    """Return a new resource id: ``sj-`` and 22 characters of ``[a-z0-9]``, within the contract's 63 of ``[a-z0-9-]``."""
    return f"sj-{_tail()}"


def _tail() -> str:
    milliseconds = time.time_ns() // 1_000_000
    return _base32(milliseconds, _TIME_CHARACTERS) + _base32(secrets.randbits(60), _RANDOM_CHARACTERS)


def _base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (length - 1), -1, -5))
