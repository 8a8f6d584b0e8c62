"""What the workspace says and what its distributions say are one and the same."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core"
DRIVERS = sorted(path.parent for path in ROOT.glob("drivers/*/pyproject.toml"))
MEMBERS = [CORE, *DRIVERS]

Pyproject = dict[str, Any]


def pyproject(folder: Path) -> Pyproject:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def project(folder: Path) -> dict[str, Any]:
    return pyproject(folder)["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


OUR_NAMES = {project(member)["name"] for member in MEMBERS}


def foreign(requirements: list[str]) -> set[str]:
    return {requirement for requirement in requirements if name_of(requirement) not in OUR_NAMES}


def merged(tables: list[dict[str, str]]) -> dict[str, str]:
    """Join tables of the members; one name with two values would hide one of them."""
    whole: dict[str, str] = {}
    for table in tables:
        for name, value in table.items():
            assert whole.setdefault(name, value) == value, f"{name} is {whole[name]} and {value}"
    return whole


def packages(member: Path) -> list[str]:
    return pyproject(member)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def id_of(member: Path) -> str:
    return member.relative_to(ROOT).as_posix()


every_member = pytest.mark.parametrize("member", MEMBERS, ids=id_of)
every_driver = pytest.mark.parametrize("driver", DRIVERS, ids=id_of)


def test_there_are_a_core_and_drivers():
    assert project(CORE)["name"] == "sojourn"
    assert ROOT / "drivers" / "local" in DRIVERS


def test_the_workspace_asks_for_what_its_members_ask_for():
    wanted = set().union(*(foreign(project(member)["dependencies"]) for member in MEMBERS))
    assert set(project(ROOT)["dependencies"]) == wanted


def test_no_dependency_is_asked_for_in_two_ways():
    asked = sorted(project(ROOT)["dependencies"])
    assert [name_of(requirement) for requirement in asked] == sorted({name_of(requirement) for requirement in asked})


def test_the_workspace_has_the_extras_of_its_members():
    extras = project(ROOT)["optional-dependencies"]
    members: dict[str, set[str]] = {}
    for member in MEMBERS:
        for extra, requirements in project(member).get("optional-dependencies", {}).items():
            members.setdefault(extra, set()).update(foreign(requirements))
    assert {extra: set(requirements) for extra, requirements in extras.items() if extra != "dev"} == members


def test_the_workspace_has_the_commands_of_its_members():
    assert project(ROOT)["scripts"] == merged([project(member).get("scripts", {}) for member in MEMBERS])


def test_the_workspace_has_the_entry_points_of_its_members():
    declared = [project(member).get("entry-points", {}) for member in MEMBERS]
    groups = {group for table in declared for group in table}
    assert project(ROOT)["entry-points"] == {
        group: merged([table.get(group, {}) for table in declared]) for group in groups
    }


def test_the_workspace_has_the_packages_of_its_members():
    assert packages(ROOT) == [f"{id_of(member)}/{package}" for member in MEMBERS for package in packages(member)]


def test_the_workspace_cannot_be_published():
    assert "Private :: Do Not Upload" in project(ROOT)["classifiers"]


def test_the_type_checker_sees_the_packages_of_all_members():
    assert pyproject(ROOT)["tool"]["mypy"]["mypy_path"] == [f"{id_of(member)}/src" for member in MEMBERS]


@every_member
def test_versions_and_python_are_in_step(member: Path):
    root = project(ROOT)
    assert (project(member)["version"], project(member)["requires-python"], project(member)["license"]) == (
        root["version"],
        root["requires-python"],
        root["license"],
    )


def test_the_module_says_the_version_of_its_distribution():
    body = ast.parse((CORE / "src/sojourn/__init__.py").read_text(encoding="utf-8")).body
    versions = [
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert versions == [project(CORE)["version"]]


@every_driver
def test_a_driver_is_pinned_to_the_core_of_its_own_version(driver: Path):
    pins = [requirement for requirement in project(driver)["dependencies"] if name_of(requirement) == "sojourn"]
    assert pins == [f"sojourn=={project(CORE)['version']}"]


@every_driver
def test_a_driver_has_one_name_to_search_for(driver: Path):
    name = driver.name
    assert project(driver)["name"] == f"sojourn-{name.replace('_', '-')}"
    assert packages(driver) == [f"src/sojourn_{name}"]
    points = project(driver)["entry-points"]["sojourn.drivers"]
    assert list(points) == [name]
    assert points[name].startswith(f"sojourn_{name}:")


@every_member
def test_a_member_ships_what_type_checkers_and_lawyers_read(member: Path):
    for package in packages(member):
        assert (member / package / "py.typed").is_file()
    assert project(member)["license-files"] == ["LICENSE"]
    assert (member / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (member / project(member)["readme"]).read_text(encoding="utf-8").startswith("# sojourn")


def test_the_licence_is_the_one_that_is_declared():
    assert project(ROOT)["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_dependency_has_its_reason_written_down():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    root = project(ROOT)
    asked = [*root["dependencies"], *(name for extra in root["optional-dependencies"].values() for name in extra)]
    explained = set(re.findall(r"^\| `([a-z0-9-]+)`", page, flags=re.MULTILINE))
    assert explained == {name_of(requirement) for requirement in asked}


def test_a_name_with_two_values_is_noticed():
    with pytest.raises(AssertionError, match="local is a:B and c:D"):
        merged([{"local": "a:B"}, {"local": "c:D"}])


@pytest.mark.parametrize(
    "requirement", ["Alembic>=1.13", "alembic", "alembic[tz]==1.0", "alembic ; python_version>'3'"]
)
def test_a_requirement_is_known_by_its_name(requirement: str):
    assert name_of(requirement) == "alembic"
