"""The stored execution workspaces of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sojourn.records import (
    ExecutionWorkspace,
)
from sojourn.runtime import Runtime
from sojourn.store import workspaces

__all__ = ["ExecutionWorkspaces"]

Check = Callable[[], None]


class ExecutionWorkspaces:
    """The stored execution workspaces of a tenant."""

    def __init__(self, runtime: Runtime, check: Check) -> None:
        """Use `Orchestrator.workspaces`."""
        self._runtime = runtime
        self._check = check

    async def create(
        self,
        *,
        workspace_id: str | None = None,
        mode: str | None = None,
        environment_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ExecutionWorkspace:
        """Store an execution workspace.

        Args:
            workspace_id: the host application's id; None makes one.
            mode: the host application's word for how it is worked in.
            environment_id: which environment its runs use, above issue, project and agent.
            metadata: further facts.
        """
        self._check()
        return await self._runtime.store.run(
            workspaces.insert,
            tenant=self._runtime.tenant,
            workspace_id=workspace_id,
            mode=mode,
            environment_id=environment_id,
            metadata=dict(metadata or {}),
        )

    async def get(self, workspace_id: str) -> ExecutionWorkspace | None:
        """Return an execution workspace of this tenant, or None."""
        self._check()
        return await self._runtime.store.read(workspaces.get, self._runtime.tenant, workspace_id)

    async def list(self) -> list[ExecutionWorkspace]:
        """Return the tenant's execution workspaces."""
        self._check()
        return await self._runtime.store.read(workspaces.list_all, self._runtime.tenant)

    async def update(self, workspace_id: str, **changes: Any) -> ExecutionWorkspace:
        """Change ``mode``, ``environment_id``, ``status`` or ``metadata``."""
        self._check()
        return await self._runtime.store.run(workspaces.update, self._runtime.tenant, workspace_id, **changes)
