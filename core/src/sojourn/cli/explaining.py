"""What ``sojourn explain`` says: the core's explanation, with what the options and the declaration make of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from sojourn.cli import declared, documents
from sojourn.cli.context import State
from sojourn.realization_records import Overlay, Workspace

if TYPE_CHECKING:
    from sojourn.cli.declared import Declared, FileCommands
    from sojourn.declaration_changes import Change
    from sojourn.explanation import Explanation

__all__ = ["Command", "Explained", "document", "explained"]


@attrs.frozen(kw_only=True)
class Command:
    """A set-up or teardown command; ``reason`` says why it would not run."""

    text: str | None
    reason: str | None = None


@attrs.frozen(kw_only=True)
class Explained:
    """All that is said.

    Args:
        place: what the core says.
        mode: of the workspace.
        timeout_seconds: of the command.
        provision: the set-up command.
        teardown: the command before the place is given back.
        declared: the declaration.
        from_file: what a run takes from it.
    """

    place: Explanation
    mode: str
    timeout_seconds: float | None
    provision: Command
    teardown: Command
    declared: Declared
    from_file: dict[str, Any]

    @property
    def pending(self) -> Change | None:
        """What `sojourn env apply` would change in the environment."""
        return self.declared.pending(self.place.environment)


async def explained(state: State, options: dict[str, Any]) -> Explained:
    """Explain a run with these options.

    Raises:
        DeclarationError: the declaration is not valid.
        EnvironmentRunError: there is no environment for such a run.
    """
    found = declared.read(options["workspace"], ignored=options["no_config"])
    options, taken = found.filled(options)
    asked = Overlay(
        provision=options["provision"],
        teardown=options["teardown"],
        provision_in_place=options["provision_in_place"],
    )
    arguments: dict[str, Any] = {
        "workspace": Workspace(
            local_path=str(Path(options["workspace"]).absolute()),
            strategy="git_worktree" if options["mode"] == "git_worktree" else "project_primary",
            branch=options["branch"],
            exclude=found.exclude,
        ),
        "transfer": "copy" if options["mode"] == "copy" else "in_place",
    }
    async with state.orchestrator() as orchestrator:
        found.prepare(orchestrator)
        with found.naming_what_is_missing():
            place = await orchestrator.explain(found.selection(options["environment"]), overlay=asked, **arguments)
    commands = found.commands(asked, place, allowed=options["declared_commands"])
    reason = None if place.provision else place.provision_reason
    return Explained(
        place=place,
        mode=options["mode"],
        timeout_seconds=options["timeout_seconds"],
        provision=_command(asked.provision, reason, commands.provision, commands.withheld),
        teardown=_command(asked.teardown, None, commands.teardown, commands.withheld),
        declared=found,
        from_file=_from_file(found, options, taken, place, commands),
    )


def _command(asked: str | None, reason: str | None, from_file: str | None, withheld: str | None) -> Command:
    if asked is None and from_file is not None:
        return Command(text=from_file, reason=withheld)
    return Command(text=asked, reason=reason if asked is not None else None)


def _from_file(
    found: Declared, options: dict[str, Any], taken: tuple[str, ...], place: Explanation, commands: FileCommands
) -> dict[str, Any]:
    values: dict[str, Any] = {"environment": place.environment.name} if place.level == "project" else {}
    values |= {name: options[name] for name in taken}
    if commands.withheld is None:
        both = {"provision": commands.provision, "teardown": commands.teardown}
        values |= {name: text for name, text in both.items() if text is not None}
    if found.exclude and place.transfer == "copy":
        values["exclude"] = list(found.exclude)
    if found.declaration.adapters:
        values["adapters"] = sorted(found.declaration.adapters)
    return values


def document(explained: Explained) -> dict[str, Any]:
    """Return it for programs."""
    place, pending = explained.place, explained.pending
    file = explained.declared.found
    return {
        # One without an id would be made by the run: the tenant's local one.
        "environment": {**documents.environment(place.environment), "id": place.environment.id or None},
        "level": place.level,
        "resolution": documents.trace(place.trace),
        "driver": place.driver,
        "driver_version": place.driver_version,
        "isolation": place.isolation,
        "transport": place.transport,
        "workspace": place.workspace.local_path,
        "mode": explained.mode,
        "transfer": place.transfer,
        "provision": None if explained.provision.text is None else explained.provision.reason is None,
        "provision_command": explained.provision.text,
        "provision_reason": explained.provision.reason,
        "teardown": None if explained.teardown.text is None else explained.teardown.reason is None,
        "teardown_command": explained.teardown.text,
        "teardown_reason": explained.teardown.reason,
        "timeout_seconds": explained.timeout_seconds,
        "policy": str(place.policy),
        "max_leases": place.capacity.max_leases,
        "occupied": place.capacity.occupied,
        "declaration": None if file is None else {"file": str(file.file), "used": explained.from_file},
        "pending": None if pending is None else sorted(pending.fields),
        "problems": list(place.problems),
    }
