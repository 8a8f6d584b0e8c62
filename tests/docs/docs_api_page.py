"""Writes docs/reference/api.md from the public names and the first sentences of their docstrings.

Run by hand: ``python tests/docs/docs_api_page.py``; a test compares.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import sojourn

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/api.md"
INTRODUCTION = """\
# API

<!-- Written by tests/docs/docs_api_page.py: change the docstrings, then run it. -->

Every name in the tables below is imported from `sojourn` itself, and is public: covered by the version number. Names
that are not here may change at any time. `import sojourn` imports nothing heavy; a name is loaded when it is first used.
"""
GROUPS = {
    "Run": ("orchestrator", "session", "attached", "streams", "settings", "paths"),
    "Choose an environment": ("resolution", "explanation", "variables", "secrets"),
    "Workspaces": ("realization_records",),
    "What is stored": ("records",),
    "Release and clean-up": ("releasing", "reaping", "removal", "doctor", "probing"),
    "Errors": ("errors",),
    "Records that cross the driver border": ("models", "targets", "hooks"),
}
MEMBERS = (
    ("sojourn.orchestrator", "Orchestrator", "Orchestrator"),
    ("sojourn.orchestrator", "Environments", "Orchestrator.environments"),
    ("sojourn.orchestrator", "ExecutionWorkspaces", "Orchestrator.workspaces"),
    ("sojourn.orchestrator", "Leases", "Orchestrator.leases"),
    ("sojourn.session", "Session", "Session"),
    ("sojourn.session", "Command", "Command"),
    ("sojourn.models", "ExecuteResult", "ExecuteResult"),
    ("sojourn.secrets", "Secret", "Secret"),
)
INTERNAL = {"Leases": {"attached", "held", "end_all", "release_run"}}
PLAIN = {
    "__version__": "The version of sojourn.",
    "hookimpl": "Marks a method as the implementation of a hook, of a driver or of a plugin.",
    "Isolation": "The strongest border between a command and the machine: `none`, `process`, `container` or `vm`.",
    "Stream": "`stdout` or `stderr`.",
    "Target": "One of the four targets.",
    "Transfer": "How a workspace gets there: `copy` or `in_place`.",
}
"""For names that have no docstring of their own."""


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring as Markdown that fits into a cell."""
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0]
    return re.sub(r"``(.+?)``", r"`\1`", sentence).replace("|", "\\|")


def said_below(module: ModuleType) -> dict[str, str]:
    """Return the texts that stand below the module's assignments."""
    body = ast.parse(inspect.getsource(module)).body
    said = {}
    for statement, after in itertools.pairwise(body):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            said |= {target.id: after.value.value for target in targets if isinstance(target, ast.Name)}
    return said


def line_of(name: str, thing: Any, said: dict[str, str]) -> str:
    """Return what is said about a public name."""
    if name in PLAIN:
        return PLAIN[name]
    if name in said:
        return first_sentence(said[name])
    if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__doc__:
        raise LookupError(f"nothing says what {name} is: give it a docstring, or a line in {__file__}")
    return first_sentence(thing.__doc__)


def table(heading: str, rows: list[tuple[str, str]]) -> list[str]:
    """Return a Markdown table of names and what is said about them."""
    return [f"| {heading} | |", "| --- | --- |", *(f"| `{name}` | {text} |" for name, text in rows), ""]


def members(cls: type, hidden: set[str]) -> list[tuple[str, str]]:
    """Return the public methods and properties of a class, as they are used."""
    rows = []
    inherited = {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}
    for name, member in inherited.items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or name in hidden or not inspect.isfunction(function):
            continue
        plain = inspect.unwrap(function)
        kind = "" if isinstance(member, property) else "()"
        how = "await " if inspect.iscoroutinefunction(plain) else ""
        if inspect.isasyncgenfunction(plain):
            how = "async for … in " if plain is function else "async with "
        rows.append((f"{how}{name}{kind}", first_sentence(plain.__doc__ or "")))
    return rows


def render() -> str:
    """Return the whole page."""
    homes = {module.removeprefix("sojourn."): names for module, names in sojourn._WHERE.items()}
    unplaced = homes.keys() - {module for modules in GROUPS.values() for module in modules}
    if unplaced:
        raise LookupError(f"no group for the public names of {', '.join(sorted(unplaced))}: put them into GROUPS")
    lines = [INTRODUCTION]
    for title, modules in GROUPS.items():
        rows = []
        for module_name in modules:
            names = homes.get(module_name, ())
            if names:
                module = importlib.import_module(f"sojourn.{module_name}")
                said = said_below(module)
                rows += [(name, line_of(name, getattr(module, name), said)) for name in names]
        lines += [f"## {title}", "", *table("name", rows)]
    lines += ["## Other", "", *table("name", [("__version__", PLAIN["__version__"])])]
    lines += ["## Members", "", "What you call on the classes that you meet first.", ""]
    for module_name, name, title in MEMBERS:
        cls = getattr(importlib.import_module(module_name), name)
        lines += [f"### {title}", "", *table("member", members(cls, INTERNAL.get(name, set())))]
    lines += [
        "`sojourn.blocking` has the same for programs without an event loop; `sojourn.testing` is for tests, see",
        "[Test your application with the fake driver](../how-to/test-your-application-with-the-fake-driver.md).",
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
