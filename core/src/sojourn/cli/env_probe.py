"""``sojourn env probe``: ask the driver whether an environment, stored or only drafted, is usable now."""

from __future__ import annotations

from typing import Any

import click

from sojourn.cli.context import State, common_options, operator, pass_state, run_async
from sojourn.cli.env_options import changed_config, config_options
from sojourn.cli.env_stored import find, probe_document, show_probe
from sojourn.cli.output import print_json

__all__ = ["probe_environment", "probe_stored"]


@click.command("probe")
@common_options
@click.argument("name", required=False)
@click.option("--driver", metavar="DRIVER", help="Probe a draft: a configuration for this driver that is not stored.")
@config_options
@click.option("--strict", is_flag=True, help="Exit status 1 when it is not usable.")
@pass_state
def probe_environment(
    state: State,
    /,
    *,
    name: str | None,
    driver: str | None,
    config_file: str | None,
    settings: tuple[tuple[str, str], ...],
    strict: bool,
) -> int:
    """Ask whether an environment is usable now; nothing is created by that.

    Of a stored one it is recorded that it was asked. Exit status 0 means that there is an answer; with --strict, that it is yes.

    \b
    Examples:
      sojourn env probe build
      sojourn env probe --driver local --set root=/var/tmp/sojourn --strict
    """
    if (name is None) is (driver is None):
        raise click.UsageError("name a stored environment, or a draft with --driver")
    if name is not None and (config_file is not None or settings):
        raise click.UsageError("--config and --set go with --driver")
    if name is not None:
        found = run_async(probe_stored(state, name))
    else:
        assert driver is not None  # noqa: S101 - one of both
        found = run_async(_probe_draft(state, driver, config_file, settings))
    if strict and not found["ok"]:
        if not state.json:
            show_probe(found)
        raise _failed(found)
    if state.json:
        print_json({"probe": found})
    else:
        show_probe(found)
    return 0


async def probe_stored(state: State, name: str) -> dict[str, Any]:
    """Probe a stored environment; return the document."""
    async with state.orchestrator() as orchestrator:
        found = await find(state, name, store=orchestrator.store, ensure=True)
        report = await orchestrator.probe(found, actor=operator())
        return probe_document(report, driver=found.driver, environment=found.name)


async def _probe_draft(
    state: State, driver: str, config_file: str | None, settings: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    from sojourn.configfields import config_fields

    async with state.orchestrator() as orchestrator:
        known = config_fields(orchestrator.drivers.get(driver).info.config_class)
        config = changed_config({}, config_file, settings, known)
        report = await orchestrator.probe_draft(driver, config, actor=operator())
        return probe_document(report, driver=driver, environment=None)


def _failed(found: dict[str, Any]) -> Exception:
    from sojourn.errors import EnvironmentRunError, ErrorCode

    what = f"environment {found['environment']!r}" if found["environment"] else "the draft"
    return EnvironmentRunError(
        ErrorCode.PROBE_FAILED,
        f"{what} (driver {found['driver']}) is not usable: {found['summary']}",
        driver=found["driver"],
        phase="probe",
        retryable=True,
        details={"probe": found},
    )
