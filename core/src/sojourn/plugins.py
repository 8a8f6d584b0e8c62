"""Plugins that are not drivers: they admit, wrap, watch, resolve secrets and name adapters."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from importlib.metadata import entry_points
from typing import Any, cast

import pluggy

from sojourn.errors import EnvironmentRunError, ErrorCode, SojournError
from sojourn.guard import being_cancelled
from sojourn.hooks import PLUGIN_HOOKS, PROJECT, PluginSpec
from sojourn.logs import logger
from sojourn.records import ActivityEvent, AdapterSpec, Operation

__all__ = ["Plugins"]

PLUGIN_GROUP = "sojourn.plugins"
ADMIT_TIMEOUT_SECONDS = 30.0
log = logger("sojourn.plugins")


class Plugins:
    """The plugins of one orchestrator: the installed ones, then those the host application gives.

    A plugin that cannot be loaded is an error, other than a driver: it may be the one that enforces a policy.

    Args:
        given: plugin objects of the host application.

    Raises:
        SojournError: a plugin cannot be loaded, or one of its hooks does not exist.
    """

    def __init__(self, given: Iterable[Any] = ()) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(PluginSpec)
        for entry_point in entry_points(group=PLUGIN_GROUP):
            self._register(entry_point.name, entry_point.load)
        for plugin in given:
            self._register(type(plugin).__name__, partial(_itself, plugin))
        self._muted: set[int] = set()

    def _register(self, name: str, load: Callable[[], Any]) -> None:
        try:
            plugin = load()
            plugin = plugin() if isinstance(plugin, type) else plugin
            # The name is what a denial shows; a second plugin of one name goes by its identity.
            self._manager.register(plugin, None if self._manager.has_plugin(name) else name)
            self._manager.check_pending()
        except Exception as error:
            hint = f"Hooks of plugins are {', '.join(PLUGIN_HOOKS)}. Fix or uninstall it"
            raise SojournError(f"plugin {name} cannot be loaded: {type(error).__name__}: {error}. {hint}") from error

    async def admit(self, operation: Operation) -> None:
        """Ask every plugin; the first that raises denies.

        Raises:
            EnvironmentRunError: denied, with the plugin's reason.
        """
        for impl in self._manager.hook.admit.get_hookimpls():
            try:
                async with asyncio.timeout(ADMIT_TIMEOUT_SECONDS):
                    await cast("Awaitable[None]", impl.function(operation))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and being_cancelled():
                    raise
                raise EnvironmentRunError(
                    ErrorCode.LEASE_ACQUIRE_FAILED,
                    f"{operation.name} was denied by plugin {impl.plugin_name}: {str(error) or type(error).__name__}",
                    environment_id=operation.environment_id,
                    driver=operation.driver,
                    phase="admit",
                ) from error

    async def around(self, operation: Operation, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run ``call`` inside every plugin's ``around``, the last registered outermost."""
        for impl in self._manager.hook.around.get_hookimpls():
            call = _nested(cast("Callable[..., Awaitable[Any]]", impl.function), operation, call)
        return await call()

    def notify(self, events: Iterable[ActivityEvent | None]) -> None:
        """Show committed activities to every plugin. One that fails is logged and not asked again."""
        for event in events:
            for impl in self._manager.hook.on_activity.get_hookimpls():
                if event is not None and id(impl) not in self._muted:
                    self._show(impl, event)

    def _show(self, impl: pluggy.HookImpl, event: ActivityEvent) -> None:
        try:
            impl.function(event)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # A watcher's SystemExit must not end the host either.
            self._muted.add(id(impl))
            log.exception("on_activity of plugin %s failed; it is not called again", impl.plugin_name)

    async def resolve_secret(self, reference: str) -> str | None:
        """Return the first plugin's answer for a secret reference, or None."""
        for impl in self._manager.hook.resolve_secret.get_hookimpls():
            answer = impl.function(reference)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                return str(answer)
        return None

    def adapters(self) -> list[AdapterSpec]:
        """Return the adapters that plugins name."""
        return [spec for specs in self._manager.hook.adapters() for spec in specs]


def _itself(plugin: Any) -> Any:
    return plugin


def _nested(
    wrap: Callable[..., Awaitable[Any]], operation: Operation, inner: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[Any]]:
    return lambda: wrap(operation, inner)
