"""What the commands share: the global options, and the way to the store and the orchestrator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.models import Actor
    from sojourn.orchestrator import Orchestrator
    from sojourn.store import Store

__all__ = ["State", "common_options", "operator", "pass_state", "run_async"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class State:
    """The global options of one call, and what an error has to know about it."""

    def __init__(self) -> None:
        self.store: str | None = None
        self.tenant = "default"
        self.json = False
        self.quiet = False
        self.failure_status = 1
        """The exit status of an error of ours; `run` has another, to tell it from the command's own."""

    def set_tenant(self, value: str) -> None:
        """Take the option."""
        self.tenant = value

    def set_quiet(self, value: bool) -> None:
        """Take the option; once quiet stays quiet."""
        self.quiet = self.quiet or value

    def orchestrator(self, *plugins: object) -> AbstractAsyncContextManager[Orchestrator]:
        """Open an orchestrator on the chosen store."""
        from sojourn.orchestrator import Orchestrator

        return Orchestrator.open(self.store, tenant=self.tenant, plugins=plugins)

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[Store]:
        """Open the chosen store alone: enough to look, and nobody signs in as a holder for that."""
        from sojourn.store import Store

        store = await Store.open(self.store)
        try:
            yield store
        finally:
            await store.close()


pass_state = click.make_pass_decorator(State, ensure=True)


def _take_store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(State).store = value


def _take_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(State).json = True


def common_options(command: F) -> F:
    """Add ``--store`` and ``--json``: they are understood before and after the name of a command."""
    options = [
        click.option(
            "--store",
            metavar="URL",
            expose_value=False,
            is_eager=True,
            callback=_take_store,
            help="Where records are: a path, sqlite:///PATH or postgresql://HOST/NAME.  "
            "[default: $SOJOURN_STORE, else sojourn.db in the state directory]",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_take_json,
            help="Print one JSON document on stdout; messages still go to stderr.",
        ),
    ]
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part."""
    import asyncio

    return asyncio.run(work)


def operator() -> Actor:
    """Return who acts at this command line: the operator, by the name of the user."""
    import os
    import pwd

    from sojourn.models import Actor

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Actor(type="operator", id=name)
