"""What the steps of a run share: the store, the drivers, the plugins, and the leases this orchestrator holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import attrs

from sojourn.drivers import Driver, DriverRegistry
from sojourn.errors import DriverBug, DriverError, InvalidConfig
from sojourn.execution import Execution
from sojourn.guard import being_cancelled
from sojourn.logs import logger
from sojourn.models import Actor, RunContext, StopReason
from sojourn.plugins import Plugins
from sojourn.records import ActivityEvent, AdapterSpec, Lease, Operation
from sojourn.resolvers import Redactor, SecretResolver
from sojourn.settings import Settings
from sojourn.store import Store

__all__ = ["SYSTEM", "TIMEOUTS_KEY", "HeldLease", "Runtime", "agent_or", "current_lease"]

T = TypeVar("T")
log = logger("sojourn")

current_lease: ContextVar[str | None] = ContextVar("sojourn_lease", default=None)
"""The id of the lease a piece of code works for; log handlers of host applications may read it."""

TIMEOUTS_KEY = "timeouts"
"""Kept with the lease: its release is bounded as agreed, whatever became of the environment since."""

SYSTEM = Actor(type="system", id="sojourn")


@attrs.define(eq=False)
class HeldLease:
    """A lease of this orchestrator, live: its latest row, its running commands, and who may do what to it now.

    Args:
        lease: the latest snapshot of its row.
        driver: its driver.
        env: variables for every command, secrets as references.
        adapter: what runs in it.
    """

    lease: Lease
    driver: Driver
    env: Mapping[str, Any]
    adapter: AdapterSpec
    exclusive: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    running: set[Execution] = attrs.field(factory=set)
    lost: asyncio.Event = attrs.field(factory=asyncio.Event)
    unhealthy: str | None = None
    """Why the place must not be handed out again, once something made us doubt it."""
    closing: bool = False
    cwd: str | None = None
    transferred: bool = False
    """Whether the caller's tree is there; a second realize does not send it again over what the run has made of it."""
    teardown: list[Callable[[], Awaitable[str | None]]] = attrs.field(factory=list)
    """Run before the release; each answers what went wrong, or None."""

    async def stop_commands(self, reason: StopReason) -> None:
        """Ask every running command to end and wait until each has."""
        self.closing = True
        running = set(self.running)
        for execution in running:
            execution.io.stop.set(reason)
            # Nobody may hold the end up by not reading.
            await execution.io.discard()
        for execution in running:
            await execution.ended.wait()


class Runtime:
    """The shared parts of one orchestrator.

    Args:
        store: where rows are.
        drivers: which drivers there are.
        plugins: what watches, wraps and admits.
        secrets: resolves references.
        settings: deadlines and limits.
        tenant: whose environments these are.
        holder_id: this orchestrator's row.
    """

    def __init__(
        self,
        *,
        store: Store,
        drivers: DriverRegistry,
        plugins: Plugins,
        secrets: SecretResolver,
        settings: Settings,
        tenant: str,
        holder_id: str,
    ) -> None:
        self.store = store
        self.drivers = drivers
        self.plugins = plugins
        self.secrets = secrets
        self.settings = settings
        self.tenant = tenant
        self.holder_id = holder_id
        self.check: Callable[[], None] = _anywhere
        """Raises `WrongContext` outside of the orchestrator's loop, thread and process, and after its close."""
        self.held: dict[str, HeldLease] = {}
        self.steps: dict[str, asyncio.Task[Any]] = {}
        """The step in progress of each lease: its acquire or its release."""
        self.waiting: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        """How many callers wait for an acquire, or have got its lease."""
        self._owned: set[asyncio.Task[Any]] = set()

    # -- work that outlives its caller --------------------------------------------------------------------------------

    def own(self, work: Coroutine[Any, Any, T], *, lease_id: str | None = None) -> asyncio.Task[T]:
        """Start a step that this orchestrator finishes whatever becomes of its caller. Await it through ``asyncio.shield``."""
        task = asyncio.create_task(work)
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)
        if lease_id is not None:
            self.steps[lease_id] = task
            task.add_done_callback(lambda _: self.steps.pop(lease_id, None))
        return task

    async def drain(self) -> None:
        """Wait until every owned step has ended."""
        while self._owned:
            await asyncio.wait(set(self._owned))

    # -- driver calls -------------------------------------------------------------------------------------------------

    async def config_of(self, lease: Lease, driver: Driver, *, lenient: bool = False) -> tuple[Any, Redactor]:
        """Return the lease's config with its secrets resolved, and the redactor that knows them.

        Raises:
            InvalidConfig: it does not fit any more, or a secret has no value (`MissingSecret`).
        """
        path = f"environments.{lease.environment_name}.config"
        config = driver.load_config(lease.config, path, version=lease.config_version, lenient=lenient)
        config = await self.secrets.resolved(config, path)
        return config, Redactor.of(config)

    def request_fields(self, lease: Lease, config: Any, actor: Actor, timeout_seconds: float | None) -> dict[str, Any]:
        """Return what every `ResourceRequest` about ``lease`` carries."""
        return {
            "installation_id": self.store.installation_id,
            "environment_id": lease.environment_id,
            "config": config,
            "context": lease.context,
            "actor": actor,
            "timeout_seconds": timeout_seconds,
            "resource_id": lease.resource_id,
            "lease_id": lease.id,
            "epoch": lease.epoch,
            "handle": lease.handle,
        }

    def timeout_of(self, lease: Lease, hook: str) -> float:
        """Return the deadline of a hook: the environment's at the time of the acquire, else the setting's."""
        own = lease.metadata.get(TIMEOUTS_KEY, {}).get(hook)
        seconds: float = getattr(self.settings, f"{hook}_timeout_seconds") if own is None else own
        return seconds

    async def call(
        self, name: str, lease: Lease, actor: Actor, redactor: Redactor, call: Callable[[], Awaitable[T]]
    ) -> T:
        """Make one driver call inside the plugins' ``around``; its error text is freed of secrets.

        Raises:
            DriverError: the driver's answer.
        """
        operation = self.operation(name, lease, actor)
        token = current_lease.set(lease.id)
        try:
            return_value: T = await self.plugins.around(operation, call)
            return return_value
        except DriverError as error:
            clean = redactor.text(str(error))
            if clean != str(error):
                # Neither chained nor kept: the original repeats the secret.
                raise _same_error(error, clean) from None
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and being_cancelled():
                raise
            # Only a plugin's `around` gets here with a foreign error, and what it raises is the driver's answer.
            text = redactor.text(f"{type(error).__name__}: {error}")
            raise DriverBug(f"{name} of driver {lease.driver} failed in a plugin: {text}") from (
                None if redactor.finds(str(error)) else error
            )
        finally:
            current_lease.reset(token)

    def operation(self, name: str, lease: Lease, actor: Actor) -> Operation:
        """Return what plugins are told about a driver call."""
        return Operation(
            name=name,
            tenant=lease.tenant,
            environment_id=lease.environment_id,
            driver=lease.driver,
            lease_id=lease.id,
            context=lease.context,
            actor_type=actor.type,
        )

    def publish(self, events: Iterable[ActivityEvent | None]) -> None:
        """Show committed activities to the plugins."""
        self.plugins.notify(events)


def _anywhere() -> None:
    pass


def _same_error(error: DriverError, message: str) -> DriverError:
    if isinstance(error, InvalidConfig):
        return InvalidConfig("", message)
    clean = error.__class__.__new__(error.__class__)
    clean.args = (message,)
    clean.__dict__.update(error.__dict__)
    return clean


def agent_or(context: RunContext, actor: Actor | None) -> Actor:
    """Return who acts: the one that was named, else the run's agent, else the operator."""
    if actor is not None:
        return actor
    if context.agent_id is not None:
        return Actor(type="agent", id=context.agent_id)
    return Actor(type="operator")
