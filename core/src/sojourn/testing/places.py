"""A lease as a clause sees it: requests that went over a wire, commands run as the core runs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from sojourn import wire
from sojourn.drivers import Driver
from sojourn.execution import Execution
from sojourn.ids import new_id
from sojourn.models import (
    AcquireRequest,
    AcquireResult,
    Actor,
    Disposition,
    ExecuteRequest,
    ExecuteResult,
    HookRequest,
    JsonObject,
    RealizeRequest,
    RealizeResult,
    ReleaseReceipt,
    ReleaseRequest,
    ResourceState,
    ResumeRequest,
    RunContext,
    StopReason,
    Target,
    TargetRequest,
    Transfer,
)
from sojourn.streams import LiveIO, Stdin, stdin_source

if TYPE_CHECKING:
    from sojourn.testing.kit import Kit

__all__ = ["Place", "Running"]

R = TypeVar("R", bound=HookRequest)

CONTEXT = RunContext(tenant="contract", run_id="run-1", agent_id="agent-1", trace={"clause": "1"})
ACTOR = Actor(type="agent", id="agent-1")
EXECUTE_SECONDS = 60.0


@attrs.define(eq=False)
class Running:
    """A command on its way.

    Args:
        execution: as the core has it.
        task: gives its result.
    """

    execution: Execution
    task: asyncio.Task[ExecuteResult]

    @property
    def io(self) -> LiveIO:
        """The live side."""
        return self.execution.io

    async def until_said(self, word: bytes, seconds: float = 20.0) -> bytes:
        """Read stdout until ``word`` was written; return all of it so far. Only for a streamed command."""
        seen = b""
        async with asyncio.timeout(seconds):
            async for chunk in self.io.chunks():
                seen += chunk.data if chunk.stream == "stdout" else b""
                if word in seen:
                    break
        assert word in seen, f"the command ended without having said {word!r}; it said {seen!r}"
        await self.io.discard()
        return seen

    async def stop(self, reason: StopReason = StopReason.CANCELLED) -> ExecuteResult:
        """End it as the core does."""
        self.io.stop.set(reason)
        return await self.task


@attrs.define(eq=False, kw_only=True)
class Place:
    """One resource and our lease of it.

    Args:
        kit: of the clause.
        driver: through which it is used.
        installation_id: whose it is.
        resource_id: its name.
        epoch: of our lease.
        handle: what the driver returned last.
        result: of acquire.
        cwd: the realized root.
    """

    kit: Kit
    driver: Driver
    installation_id: str
    resource_id: str
    epoch: int = 1
    handle: JsonObject | None = None
    result: AcquireResult | None = None
    cwd: str | None = None

    async def fields(self, *, timeout_seconds: float | None = 60.0, **changes: Any) -> dict[str, Any]:
        """Return what every request about the resource carries."""
        return {
            "installation_id": self.installation_id,
            "environment_id": "env-contract",
            "config": await self.kit.config(self.driver),
            "context": CONTEXT,
            "actor": ACTOR,
            "timeout_seconds": timeout_seconds,
            "resource_id": self.resource_id,
            "lease_id": f"lease-{self.resource_id}",
            "epoch": self.epoch,
            "handle": self.handle,
            **changes,
        }

    async def sent(self, request: R) -> R:
        """Return the request as it arrives over a wire: nothing in it is the object that was put in."""
        data = json.loads(json.dumps(wire.dump(request)))
        return attrs.evolve(wire.load(type(request), data), config=await self.kit.config(self.driver))

    # -- hooks --------------------------------------------------------------------------------------------------------

    async def acquire(self, spec: str = "spec-1", transfer: Transfer | None = None) -> AcquireResult:
        """Acquire; the resource is then the kit's to give back."""
        self.kit.note(self)
        fields = await self.fields(handle=None)
        request = AcquireRequest(**fields, spec=spec, transfer=transfer or self.kit.transfer)
        self.result = await self.driver.acquire(await self.sent(request))
        self.handle = json.loads(json.dumps(self.result.handle))
        return self.result

    async def resume(self) -> AcquireResult:
        """Take it up again under the next epoch."""
        self.epoch += 1
        self.result = await self.driver.resume(await self.sent(ResumeRequest(**await self.fields())))
        self.handle = json.loads(json.dumps(self.result.handle))
        return self.result

    async def realize(
        self, *, clean: bool = False, transfer: Transfer | None = None, local_path: str | None = None
    ) -> str | None:
        """Realize as the core does, and return the root."""
        remote_path = self.result.remote_cwd if self.result is not None else None
        if not self.driver.has("realize"):
            return await self._default_root(remote_path)
        request = RealizeRequest(
            **await self.fields(),
            transfer=transfer or self.kit.transfer,
            local_path=local_path or str(self.kit.workspace),
            remote_path=remote_path,
            clean=clean,
        )
        result: RealizeResult = await self.driver.realize(await self.sent(request))
        self.cwd = result.cwd or remote_path
        return self.cwd

    async def _default_root(self, root: str | None) -> str | None:
        if root is not None:
            (await self.run(("mkdir", "-p", "--", root), cwd="/")).check()
        self.cwd = root
        return root

    async def target(self) -> Target:
        """Ask for the transport facts."""
        return self.driver.target(await self.sent(TargetRequest(**await self.fields(), cwd=self.cwd)))

    async def release(
        self, disposition: Disposition = Disposition.DESTROY, *, driver: Driver | None = None, **changes: Any
    ) -> ReleaseReceipt:
        """Release; the kit forgets the resource only when it is proven gone."""
        fields = await self.fields(**changes)
        request = await self.sent(ReleaseRequest(**fields, disposition=disposition))
        receipt = await (driver or self.driver).release(request)
        if receipt.handle is not None:
            self.handle = receipt.handle
        if receipt.state is ResourceState.GONE and fields["installation_id"] == self.installation_id:
            self.kit.forget(self)
        return receipt

    # -- commands -----------------------------------------------------------------------------------------------------

    async def execution(
        self,
        argv: tuple[str, ...],
        *,
        stdin: Stdin = None,
        streamed: bool = False,
        timeout_seconds: float | None = EXECUTE_SECONDS,
        output_limit_bytes: int = 8 * 1024 * 1024,
        cwd: str | None = None,
        driver: Driver | None = None,
        **changes: Any,
    ) -> Execution:
        """Make a command ready, as the core does."""
        fields = await self.fields(timeout_seconds=timeout_seconds)
        request = ExecuteRequest(
            **{"exec_id": new_id("exec"), "grace_seconds": 1.0, **fields, **changes},
            argv=argv,
            cwd=self.cwd if cwd is None else cwd,
            output_limit_bytes=output_limit_bytes,
        )
        io = LiveIO(stdin_source(stdin), output_limit_bytes, streamed=streamed)
        return Execution(request=await self.sent(request), io=io, call=(driver or self.driver).execute)

    async def run(self, argv: tuple[str, ...], **options: Any) -> ExecuteResult:
        """Run a command to its end; options are those of `execution`, and fields of the request (``env``, ``user``, …)."""
        return await (await self.execution(argv, **options)).run()

    @asynccontextmanager
    async def running(self, argv: tuple[str, ...], **options: Any) -> AsyncIterator[Running]:
        """Run a command in the background; leaving the block ends it."""
        execution = await self.execution(argv, **options)
        command = Running(execution, asyncio.create_task(execution.run()))
        try:
            yield command
        finally:
            execution.io.stop.set(StopReason.CANCELLED)
            await execution.io.discard()
            await asyncio.wait({command.task}, timeout=15.0)
            if command.task.done() and not command.task.cancelled():
                command.task.exception()

    async def ready(self, argv: tuple[str, ...], env: Mapping[str, str] | None = None) -> None:
        """Run a command that leaves something behind, and see that it worked."""
        (await self.run(argv, env=env or {})).check()
