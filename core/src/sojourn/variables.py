"""The environment variables of a run: which layer wins, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sojourn.errors import InvalidArgument
from sojourn.execution import check_env
from sojourn.secrets import Secret

__all__ = ["RESERVED", "Variables", "refuse_reserved"]

RESERVED = frozenset({"SOJOURN_RESOURCE_ID"})
"""Set by the driver in every command's environment; what a caller puts there would be lost."""


@attrs.frozen(kw_only=True)
class Variables:
    """What the layers above the stored environment set; later ones win: agent, project, run.

    Args:
        agent: of the agent.
        project: of the project.
        run: of this run alone.
    """

    agent: Mapping[str, str | Secret] = attrs.field(factory=dict, repr=False)
    project: Mapping[str, str | Secret] = attrs.field(factory=dict, repr=False)
    run: Mapping[str, str | Secret] = attrs.field(factory=dict, repr=False)

    def over(self, environment: Mapping[str, str | Secret]) -> dict[str, str | Secret]:
        """Return all variables, those of the stored environment lowest."""
        return {**environment, **self.agent, **self.project, **self.run}

    def scopes(self, name: str, environment: Mapping[str, str | Secret]) -> dict[str, Mapping[str, str | Secret]]:
        """Return every layer by the name it has in errors."""
        scopes = {f"environments.{name}.env": environment}
        return scopes | {"agent.env": self.agent, "project.env": self.project, "run.env": self.run}


def refuse_reserved(scope: str, env: Mapping[str, str | Secret]) -> None:
    """Check one layer's names and values.

    Raises:
        InvalidArgument: a reserved name, a name that is none, or a NUL, naming scope and variable.
    """
    try:
        check_env(env)
    except InvalidArgument as error:
        raise InvalidArgument(f"{scope}: {error}") from None
    for name in sorted(RESERVED & env.keys()):
        raise InvalidArgument(f"{scope}.{name} is reserved: the driver sets it. Choose another name")
