"""Who may import what: the core no driver, a driver only public names, ``import sojourn`` nothing heavy."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sojourn

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core/src/sojourn"
DRIVERS = sorted(path for path in ROOT.glob("drivers/*/src/*") if path.is_dir() and path.name.isidentifier())
DRIVER_NAMES = {path.name for path in DRIVERS}

# Modules of the core whose own `__all__` a driver may use beside the names of `sojourn` itself. `sojourn.testing` is for
# drivers' tests; the other three hold what `sojourn` re-exports, for those who like to see where a name comes from.
PUBLIC_MODULES = ("sojourn.errors", "sojourn.hooks", "sojourn.models", "sojourn.testing")


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def public_names(module: str) -> set[str]:
    return set(importlib.import_module(module).__all__)


def imported_roots(source: str) -> set[str]:
    """List the top-level packages that a module imports, by statement or by name in `import_module`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            found |= {
                str(argument.value).partition(".")[0] for argument in node.args if isinstance(argument, ast.Constant)
            }
    return found


def private_uses(source: str) -> list[str]:
    """List what a driver's module takes from `sojourn` although it is not public."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [
                alias.name
                for alias in node.names
                if alias.name.partition(".")[0] == "sojourn" and alias.name not in ("sojourn", *PUBLIC_MODULES)
            ]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "sojourn":
            if node.module not in ("sojourn", *PUBLIC_MODULES):
                found.append(node.module)
                continue
            allowed = public_names(node.module)
            if node.module == "sojourn":
                allowed |= {module.partition(".")[2] for module in PUBLIC_MODULES}
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in allowed]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sojourn":
            known = {*sojourn.__all__, *(module.partition(".")[2] for module in PUBLIC_MODULES)}
            found += [f"sojourn.{node.attr}"] if node.attr not in known else []
    return found


def modules_after(statement: str, heavy: tuple[str, ...]) -> list[str]:
    """Run one import in a new interpreter; list which of these packages it brought in."""
    program = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [name for name in heavy if name in done.stdout.split()]


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: path.relative_to(CORE).as_posix())
def test_the_core_never_imports_a_driver(path: Path):
    assert not imported_roots(path.read_text(encoding="utf-8")) & DRIVER_NAMES


@pytest.mark.parametrize("package", DRIVERS, ids=lambda path: path.name)
def test_a_driver_imports_only_public_names(package: Path):
    found = {path.name: private_uses(path.read_text(encoding="utf-8")) for path in sources(package)}
    assert {name: uses for name, uses in found.items() if uses} == {}
    assert found, f"{package} has no modules"


@pytest.mark.parametrize("package", DRIVERS, ids=lambda path: path.name)
def test_a_driver_imports_no_other_driver(package: Path):
    for path in sources(package):
        assert not imported_roots(path.read_text(encoding="utf-8")) & (DRIVER_NAMES - {package.name}), path


def test_importing_sojourn_imports_nothing_heavy():
    heavy = (
        "sqlalchemy",
        "alembic",
        "cattrs",
        "pluggy",
        "attr",
        "attrs",
        "click",
        "platformdirs",
        "asyncio",
        "logging",
    )
    assert modules_after("import sojourn", heavy) == []


@pytest.mark.parametrize("package", DRIVERS, ids=lambda path: path.name)
def test_importing_a_driver_imports_no_store_and_no_command_line(package: Path):
    assert modules_after(f"import {package.name}", ("sqlalchemy", "alembic", "click")) == []


@pytest.mark.parametrize("name", sojourn.__all__)
def test_every_public_name_can_be_imported(name: str):
    assert getattr(sojourn, name) is not None


def test_public_names_are_said_once_and_in_order():
    names = [name for name in sojourn.__all__ if name != "__version__"]
    assert names == sorted(set(names))
    assert len(names) == sum(len(names) for names in sojourn._WHERE.values())
    assert set(dir(sojourn)) == set(sojourn.__all__)


@pytest.mark.parametrize("module", sojourn._WHERE)
def test_a_public_name_is_public_where_it_lives(module: str):
    assert set(sojourn._WHERE[module]) <= public_names(module)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sojourn.no_such_name


def test_what_a_type_checker_sees_is_what_is_there():
    """The imports under TYPE_CHECKING name every public name, by itself or by the module's `__all__`."""
    seen: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(sojourn))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sojourn."):
            for alias in node.names:
                seen |= public_names(node.module) if alias.name == "*" else {alias.name}
    assert {name for name in sojourn.__all__ if name != "__version__"} <= seen


@pytest.mark.parametrize(
    "source",
    [
        "from sojourn.store import Store",
        "from sojourn import _WHERE",
        "import sojourn.store",
        "from sojourn.models import _private",
        "import sojourn\nsojourn.store.Store()",
        "def late():\n    from sojourn.drivers import Registry",
    ],
)
def test_a_private_import_is_noticed(source: str):
    assert private_uses(source)


@pytest.mark.parametrize(
    "source",
    [
        "from sojourn import Unavailable, errors, hookimpl",
        "import sojourn\nraise sojourn.Unavailable('x')",
        "from sojourn.errors import Gone",
        "from sojourn_local.tree import sojourn_tree",
        "import sojourn.models",
    ],
)
def test_a_public_import_is_let_through(source: str):
    assert private_uses(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import sojourn_local",
        "from sojourn_local.tree import end",
        "import importlib\nimportlib.import_module('sojourn_local')",
        "def late():\n    import sojourn_local.tree as tree",
    ],
)
def test_an_import_of_a_driver_is_noticed(source: str):
    assert "sojourn_local" in imported_roots(source)


def test_a_heavy_import_is_noticed():
    assert modules_after("import json", ("json", "click")) == ["json"]
