"""What the store raises beyond `sojourn.errors`: answers that its callers branch on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import StoreError

if TYPE_CHECKING:
    from sojourn.records import Lease

__all__ = ["DuplicateName", "LeaseExists", "RecordNotFound", "ResourceTaken"]


class DuplicateName(StoreError):
    """The tenant has a record of that name or id already."""


class RecordNotFound(StoreError):
    """The row to change does not exist."""


class LeaseExists(StoreError):
    """This run has a live lease under that key already; ``existing`` is it."""

    def __init__(self, existing: Lease) -> None:
        super().__init__(
            f"run {existing.context.run_id} already has lease {existing.id} ({existing.status}) under key {existing.lease_key!r}"
        )
        self.existing = existing


class ResourceTaken(StoreError):
    """Another live row names that resource; ``existing`` is it."""

    def __init__(self, existing: Lease) -> None:
        super().__init__(f"resource {existing.resource_id} belongs to lease {existing.id} ({existing.status})")
        self.existing = existing
