"""Where environments, leases and what happened are kept: one SQLite file, or a PostgreSQL database that hosts share."""

from __future__ import annotations

from sojourn.store.errors import DuplicateName, LeaseExists, RecordNotFound, ResourceTaken
from sojourn.store.store import Store

__all__ = ["DuplicateName", "LeaseExists", "RecordNotFound", "ResourceTaken", "Store"]
