"""Ask a driver whether an environment, stored or only drafted, is usable now; nothing is created by that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sojourn.errors import DriverError, ErrorCode, InvalidConfig
from sojourn.models import Actor, Diagnostic, ProbeReport, ProbeRequest, RunContext
from sojourn.records import Environment, Operation
from sojourn.resolvers import Redactor
from sojourn.run_errors import of_environment
from sojourn.runtime import Runtime
from sojourn.store import activity

__all__ = ["probe", "probe_draft", "require"]


async def probe(runtime: Runtime, environment: Environment, actor: Actor, *, recorded: bool = True) -> ProbeReport:
    """Probe a stored environment and, unless told otherwise, record that. Never raises for an unusable one.

    Raises:
        EnvironmentRunError: ``driver_unavailable``.
    """
    report = await _ask(
        runtime,
        environment.driver,
        dict(environment.config),
        name=environment.name,
        version=environment.config_version,
        environment_id=environment.id,
        timeout_seconds=environment.timeouts.get("probe", runtime.settings.probe_timeout_seconds),
        actor=actor,
    )
    if not recorded:
        return report
    event = await runtime.store.run(
        activity.record,
        tenant=runtime.tenant,
        actor_type=actor.type,
        actor_id=actor.id,
        agent_id=None,
        run_id=None,
        action="environment.probed",
        entity_type="environment",
        entity_id=environment.id,
        details={"ok": report.ok, "summary": report.summary, "driver": environment.driver},
    )
    runtime.publish([event])
    return report


async def probe_draft(runtime: Runtime, name: str, driver: str, config: Mapping[str, Any], actor: Actor) -> ProbeReport:
    """Probe a config that is not stored; nothing is recorded.

    Raises:
        EnvironmentRunError: ``driver_unavailable``.
    """
    return await _ask(
        runtime,
        driver,
        dict(config),
        name=name,
        version=None,
        environment_id=None,
        timeout_seconds=runtime.settings.probe_timeout_seconds,
        actor=actor,
    )


async def require(runtime: Runtime, environment: Environment, actor: Actor) -> None:
    """Probe an environment that says ``require_probe``, before anything is leased in it.

    Raises:
        EnvironmentRunError: ``probe_failed``, with what the probe found.
    """
    if not environment.require_probe:
        return
    report = await probe(runtime, environment, actor)
    if not report.ok:
        found = "; ".join(f"{d.message} ({d.hint})" if d.hint else d.message for d in report.diagnostics)
        message = f"environment {environment.name!r} (driver {environment.driver}) is not usable: {report.summary}"
        message += f": {found}" if found else ""
        raise of_environment(ErrorCode.PROBE_FAILED, message, environment, phase="probe", retryable=True)


async def _ask(
    runtime: Runtime,
    driver_name: str,
    data: dict[str, Any],
    *,
    name: str,
    version: int | None,
    environment_id: str | None,
    timeout_seconds: float,
    actor: Actor,
) -> ProbeReport:
    driver = runtime.drivers.get(driver_name)
    path = f"environments.{name}.config"
    redactor = Redactor()
    try:
        config = await runtime.secrets.resolved(driver.load_config(data, path, version=version), path)
        redactor = Redactor.of(config)
        request = ProbeRequest(
            installation_id=runtime.store.installation_id,
            environment_id=environment_id,
            config=config,
            context=RunContext(tenant=runtime.tenant, run_id=None, agent_id=None),
            actor=actor,
            timeout_seconds=timeout_seconds,
        )
        operation = Operation(
            name="probe",
            tenant=runtime.tenant,
            environment_id=environment_id,
            driver=driver_name,
            lease_id=None,
            context=request.context,
            actor_type=actor.type,
        )
        report: ProbeReport = await runtime.plugins.around(operation, lambda: driver.probe(request))
    except InvalidConfig as error:
        return _unusable("the config is not valid", str(error), "correct it, or give the secret its value")
    except DriverError as error:
        return _unusable("the probe failed", redactor.text(f"{type(error).__name__}: {error}"), None)
    return report


def _unusable(summary: str, message: str, hint: str | None) -> ProbeReport:
    return ProbeReport(ok=False, summary=summary, diagnostics=(Diagnostic(level="error", message=message, hint=hint),))
