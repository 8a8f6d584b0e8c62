"""What a repository's ``sojourn.toml`` adds to a run: defaults below the options, and commands only where they are harmless."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from sojourn.declaration_changes import Change, plan_changes
from sojourn.declaration_search import find_declaration
from sojourn.declarations import Declaration, DeclarationFile, parse_declaration
from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.realization_records import Overlay
from sojourn.records import Environment
from sojourn.resolution import Selection

if TYPE_CHECKING:
    from sojourn.explanation import Explanation
    from sojourn.orchestrator import Orchestrator

__all__ = ["Declared", "FileCommands", "read"]

DEFAULT_MODE = "in_place"


@attrs.frozen(kw_only=True)
class FileCommands:
    """Which set-up and teardown commands come from the file, and why they would not run (None: they would)."""

    provision: str | None = None
    teardown: str | None = None
    withheld: str | None = None

    def overlay(self, asked: Overlay) -> Overlay:
        """Return ``asked`` with the file's commands in it; never so that they run in the caller's own tree."""
        if self.withheld is not None:
            return asked
        if self.provision is not None:
            asked = attrs.evolve(asked, provision=self.provision, provision_in_place=False)
        return attrs.evolve(asked, teardown=self.teardown) if self.teardown is not None else asked


@attrs.frozen(kw_only=True)
class Declared:
    """The declaration that holds for a run; without a file it is empty.

    Args:
        found: the file; None where there is none, or it is ignored.
    """

    found: DeclarationFile | None = None

    @property
    def declaration(self) -> Declaration:
        """What it declares."""
        return self.found.declaration if self.found else Declaration()

    @property
    def exclude(self) -> tuple[str, ...]:
        """What stays behind when the tree is copied."""
        return self.declaration.workspace.exclude

    def selection(self, requested: str | None) -> Selection:
        """Return the levels: what was asked for by hand, and the project's choice."""
        return Selection(requested=requested, project=self.declaration.defaults.environment)

    def filled(self, options: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the options with the file's defaults where they were not given, and the names of those."""
        defaults = self.declaration.defaults
        taken = tuple(
            name
            for name in ("mode", "timeout_seconds")
            if name in options and options[name] is None and getattr(defaults, name) is not None
        )
        filled = options | {name: getattr(defaults, name) for name in taken}
        return filled | {"mode": filled["mode"] or DEFAULT_MODE}, taken

    def prepare(self, orchestrator: Orchestrator) -> None:
        """Check what only drivers can judge, and name the adapters.

        Raises:
            DeclarationError: before anything is leased.
        """
        if self.found is None:
            return
        # A colleague's environment on a driver that is not installed here is no reason not to run in another one.
        self.found.check(orchestrator.drivers, missing_drivers="ignore")
        for spec in self.declaration.adapter_specs():
            orchestrator.register_adapter(spec)

    def commands(self, asked: Overlay, place: Explanation, *, allowed: bool) -> FileCommands:
        """Say which of the file's commands a run would execute.

        A file that came with a clone must not make this machine execute what nobody asked for.

        Args:
            asked: what the options say; that is above the file.
            place: where the run would be.
            allowed: ``--declared-commands`` was given.
        """
        defaults = self.declaration.defaults
        provision = defaults.provision if asked.provision is None else None
        teardown = defaults.teardown if asked.teardown is None else None
        if self.found is None or (provision is None and teardown is None):
            return FileCommands()
        return FileCommands(provision=provision, teardown=teardown, withheld=self._withheld(place, allowed=allowed))

    def _withheld(self, place: Explanation, *, allowed: bool) -> str | None:
        assert self.found is not None  # noqa: S101 - the caller looked
        workspace = place.workspace
        own_tree = workspace.strategy == "project_primary" and place.transfer != "copy"
        if own_tree and workspace.local_path is not None:
            return f"it comes from {self.found.file}, and the workspace is your own tree"
        if place.transport == "local" and not allowed:
            return f"it comes from {self.found.file}, and the place is on this machine; --declared-commands allows it"
        return None

    def pending(self, environment: Environment) -> Change | None:
        """Return what `sojourn env apply` would change in an environment that a run uses."""
        if self.found is None or environment.name not in self.declaration.environments:
            return None
        only = attrs.evolve(
            self.declaration, environments={environment.name: self.declaration.environments[environment.name]}
        )
        (change,) = plan_changes(only, [environment] if environment.id else [])
        return change if change.action != "unchanged" else None

    @contextmanager
    def naming_what_is_missing(self) -> Iterator[None]:
        """Turn "no such environment" into what to do about it, where the file knows the name."""
        try:
            yield
        except EnvironmentRunError as error:
            name = error.details.get("environment")
            if self.found is None or error.code != ErrorCode.ENVIRONMENT_NOT_FOUND or name is None:
                raise
            if name in self.declaration.environments:
                raise self._not_applied(str(name)) from None
            if name == self.declaration.defaults.environment:
                path = "defaults.environment"
                error.add_note(f"named in {self.found.file}:{self.found.line(path)}: {path}")
            raise

    def _not_applied(self, name: str) -> EnvironmentRunError:
        assert self.found is not None  # noqa: S101 - the caller looked
        where = f"{self.found.file}:{self.found.line(f'environments.{name}')}"
        return EnvironmentRunError(
            ErrorCode.ENVIRONMENT_NOT_FOUND,
            f"environment {name!r} is declared in {where} and not stored yet; `sojourn env apply` shows what that "
            "would change, and does it",
            phase="resolve",
            details={"environment": name, "file": str(self.found.file)},
        )


def read(workspace: str, *, ignored: bool) -> Declared:
    """Return the declaration that holds for a workspace.

    Raises:
        DeclarationError: it is not valid.
    """
    file = None if ignored else find_declaration(Path(workspace))
    return Declared(found=parse_declaration(file) if file else None)
