"""Find the lease that somebody names, or say that there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.cli.failures import CommandLineError

if TYPE_CHECKING:
    from sojourn.cli.context import State
    from sojourn.records import Lease
    from sojourn.store import Store

__all__ = ["existing"]


async def existing(state: State, store: Store, lease_id: str) -> Lease:
    """Return the tenant's lease of that id.

    Raises:
        CommandLineError: there is none.
    """
    from sojourn.store import leases

    found = await store.read(leases.get, lease_id)
    if found is None or found.tenant != state.tenant:
        raise CommandLineError(
            f"there is no lease {lease_id!r}; `sojourn lease list` shows what there is", "lease_not_found"
        )
    return found
