"""What a driver's author declares about a driver that none of its hooks says."""

from __future__ import annotations

import attrs

__all__ = ["Capabilities"]


@attrs.frozen(kw_only=True)
class Capabilities:
    """What may be tested of a driver. Everything is undeclared until the author declares it; undeclared clauses are skipped.

    What a hook says by being there (`inventory`, `resume`, …) and what `driver_info` says is read off the driver.

    Args:
        parallel: several commands run in one lease at once.
        survives_restart: a resource outlives the process that acquired it, and a new one can use and release it.
        keeps_files: files that a command wrote are there for later commands of the resource, also after keep and resume.
        host_processes: commands are processes of this machine, so that the default back door sees them in ``/proc``.
        other_user: a user whom commands can run as, other than the default one.
    """

    parallel: bool = False
    survives_restart: bool = False
    keeps_files: bool = False
    host_processes: bool = False
    other_user: str | None = None
