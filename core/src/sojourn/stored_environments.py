"""The stored environments of a tenant: created, changed, archived, removed; checked before they are stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sojourn import removal
from sojourn.errors import (
    EnvironmentRunError,
    ErrorCode,
    InvalidArgument,
    InvalidConfig,
)
from sojourn.models import Actor
from sojourn.records import (
    Environment,
    EnvironmentStatus,
    LeaseOutcome,
    LeasePolicy,
    LeaseStatus,
)
from sojourn.releasing import Ending
from sojourn.removal import BlastRadius
from sojourn.resolution import LOCAL
from sojourn.resolvers import secrets_in
from sojourn.runtime import Runtime
from sojourn.secrets import Secret
from sojourn.store import environments
from sojourn.stored_leases import Leases
from sojourn.variables import refuse_reserved

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["TIMEOUTS", "Environments", "check_name", "check_numbers"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TIMEOUTS = frozenset({"acquire", "realize", "release", "probe", "resume", "provision"})
Check = Callable[[], None]


class Environments:
    """The stored environments of a tenant."""

    def __init__(self, runtime: Runtime, check: Check) -> None:
        """Use `Orchestrator.environments`."""
        self._runtime = runtime
        self._check = check

    async def create(
        self,
        name: str,
        driver: str,
        config: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str | Secret] | None = None,
        policy: LeasePolicy = LeasePolicy.EPHEMERAL,
        max_leases: int | None = None,
        require_probe: bool = False,
        timeouts: Mapping[str, float] | None = None,
        description: str = "",
    ) -> Environment:
        """Store a new environment; its config is checked first.

        Args:
            name: letters, digits, ``.``, ``_``, ``-``; unique in the tenant.
            driver: an installed driver's name.
            config: plain JSON of the driver's config class; secrets as references.
            env: variables for every command.
            policy: what becomes of a place when its run is over.
            max_leases: how many places at once; None for no limit.
            require_probe: probe before every acquire.
            timeouts: seconds per hook, over the settings.
            description: for people.

        Raises:
            EnvironmentRunError: ``driver_unavailable`` or ``invalid_config``.
            StoreError: the name is taken (`sojourn.store.DuplicateName`).
        """
        self._check()
        values = self._checked(
            name, driver, dict(config or {}), env=dict(env or {}), max_leases=max_leases, timeouts=dict(timeouts or {})
        )
        return await self._runtime.store.run(
            environments.insert,
            tenant=self._runtime.tenant,
            name=name,
            driver=driver,
            policy=policy,
            require_probe=require_probe,
            description=description,
            **values,
        )

    async def get(self, id_or_name: str) -> Environment:
        """Return an environment of this tenant.

        Raises:
            EnvironmentRunError: ``environment_not_found``.
        """
        self._check()
        return await self._runtime.store.read(self._find, id_or_name)

    async def list(self, *, include_archived: bool = False) -> list[Environment]:
        """Return the tenant's environments."""
        self._check()
        return await self._runtime.store.read(
            environments.list_all, self._runtime.tenant, include_archived=include_archived
        )

    async def update(self, id_or_name: str, **changes: Any) -> Environment:
        """Change fields of an environment (those of `create`, and ``status``); its leases keep what they were acquired with.

        Raises:
            EnvironmentRunError: ``environment_not_found``, ``driver_unavailable`` or ``invalid_config``.
        """
        self._check()
        before = await self.get(id_or_name)
        driver = changes.get("driver", before.driver)
        # A config that is not touched stays in the version in which it was written.
        kept = "config" not in changes and driver == before.driver
        values = self._checked(
            changes.get("name", before.name),
            driver,
            dict(changes.get("config", before.config)),
            env=dict(changes.get("env", before.env)),
            max_leases=changes.get("max_leases", before.max_leases),
            timeouts=dict(changes.get("timeouts", before.timeouts)),
            config_version=before.config_version if kept else None,
        )
        return await self._runtime.store.run(environments.update, before.id, **{**changes, **values})

    async def archive(self, id_or_name: str) -> Environment:
        """Take an environment out of use; running leases go on, and its row stays."""
        self._check()
        found = await self.get(id_or_name)
        return await self._runtime.store.run(environments.update, found.id, status=EnvironmentStatus.ARCHIVED)

    async def set_default(self, id_or_name: str | None) -> None:
        """Make an environment the tenant's default; None goes back to the local one."""
        self._check()
        found = None if id_or_name is None else (await self.get(id_or_name)).id
        await self._runtime.store.run(environments.set_default, self._runtime.tenant, found)

    async def blast_radius(self, id_or_name: str) -> BlastRadius:
        """Say what removing an environment would hit; changes nothing.

        Raises:
            EnvironmentRunError: ``environment_not_found``.
        """
        found = await self.get(id_or_name)
        return await self._runtime.store.read(removal.blast_radius, found, self._references(found))

    async def remove(self, id_or_name: str, *, force: bool = False, actor: Actor | None = None) -> BlastRadius:
        """Remove an environment's row. Places that wait for clean-up, and retained ones, are not forgotten by that.

        Args:
            id_or_name: which.
            force: end the commands of active leases and release those first, instead of refusing.
            actor: who asks.

        Returns:
            What was hit.

        Raises:
            EnvironmentRunError: ``environment_not_found``; ``environment_in_use`` when leases are active, forced or not: a
                forced removal tries once to release them.
        """
        found = await self.get(id_or_name)
        references = self._references(found)
        radius = await self._runtime.store.read(removal.blast_radius, found, references)
        if force:
            ending = Ending(LeaseOutcome.EXPIRED, f"environment {found.name!r} was removed", actor=actor)
            active = [lease for lease in radius.active_leases if lease.status is LeaseStatus.ACTIVE]
            await Leases(self._runtime, self._check).end_all(active, ending)
        await self._runtime.store.run(removal.delete_unless_used, found, references)
        return radius

    def _references(self, environment: Environment) -> tuple[str, ...]:
        """Return the secret references of an environment; those of a config need its driver, to know which texts they are."""
        sources: list[Any] = [environment.env]
        try:
            driver = self._runtime.drivers.get(environment.driver)
            sources.append(driver.load_config(environment.config, "", version=environment.config_version, lenient=True))
        except (EnvironmentRunError, InvalidConfig):
            pass  # neither a missing driver nor a config of another version may keep an environment from being removed
        return tuple(sorted({secret.reference for source in sources for _, secret in secrets_in(source)}))

    def _find(self, conn: Connection, id_or_name: str) -> Environment:
        tenant = self._runtime.tenant
        found = environments.get(conn, id_or_name)
        if found is None or found.tenant != tenant:
            found = environments.find(conn, tenant, id_or_name)
        if found is None:
            known = ", ".join(e.name for e in environments.list_all(conn, tenant, include_archived=True)) or "none yet"
            raise EnvironmentRunError(
                ErrorCode.ENVIRONMENT_NOT_FOUND, f"no environment {id_or_name!r}. There are: {known}", phase="resolve"
            )
        return found

    def _checked(
        self,
        name: str,
        driver: str,
        config: dict[str, Any],
        *,
        env: dict[str, str | Secret],
        max_leases: int | None,
        timeouts: dict[str, float],
        config_version: int | None = None,
    ) -> dict[str, Any]:
        path = f"environments.{name}"
        loaded = self._runtime.drivers.get(driver)
        try:
            check_name(name, driver)
            loaded.load_config(config, f"{path}.config", version=config_version)
            refuse_reserved(f"{path}.env", env)
            check_numbers(path, max_leases, timeouts)
        except (InvalidConfig, InvalidArgument) as error:
            raise EnvironmentRunError(ErrorCode.INVALID_CONFIG, str(error), driver=driver, phase="config") from None
        version = loaded.info.config_version if config_version is None else config_version
        return {"config": config, "config_version": version, "env": env, "max_leases": max_leases, "timeouts": timeouts}


def check_name(name: str, driver: str) -> None:
    """Check an environment's name, and that ``local`` stays what it says.

    Raises:
        InvalidConfig: naming the path.
    """
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"environments.{name[:80]!r}", "a name is up to 63 letters, digits, '.', '_', '-'")
    if name == LOCAL and driver != LOCAL:
        # The name stands for this machine in every trace; it must not come to mean another place.
        raise InvalidConfig("environments.local.driver", "the environment called local runs on driver local")


def check_numbers(path: str, max_leases: int | None, timeouts: Mapping[str, float]) -> None:
    """Check an environment's numbers.

    Raises:
        InvalidConfig: naming the path below ``path``.
    """
    if max_leases is not None and not max_leases >= 1:
        raise InvalidConfig(f"{path}.max_leases", "must be a whole number of at least 1, or nothing for no limit")
    for hook, seconds in timeouts.items():
        if hook not in TIMEOUTS:
            raise InvalidConfig(f"{path}.timeouts.{hook}", f"unknown; known are {', '.join(sorted(TIMEOUTS))}")
        if not 0 < seconds < float("inf"):
            raise InvalidConfig(f"{path}.timeouts.{hook}", "must be a number of seconds above 0")
