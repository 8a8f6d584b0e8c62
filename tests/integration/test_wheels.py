"""What is released is the wheel: built as for a release, installed into an empty environment, and tested there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import xml.etree.ElementTree as ET
import zipfile
from email.parser import Parser
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = [ROOT / "core", *sorted(path.parent for path in ROOT.glob("drivers/*/pyproject.toml"))]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

# Fetching the dependencies into the empty environment takes as long as the index takes.
pytestmark = pytest.mark.timeout(600)

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.relative_to(ROOT).as_posix())


def clean_environment() -> dict[str, str]:
    """Give the variables of this process without those that would let the source tree in."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    return {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("SOJOURN_")}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure shows all that it said."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment() | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def distribution(member: Path) -> str:
    return tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"].replace("-", "_")


def package(member: Path) -> Path:
    return next(path for path in (member / "src").iterdir() if (path / "py.typed").is_file())


def sources(member: Path) -> set[str]:
    """List what the source package holds, as the names inside a wheel."""
    folder = package(member)
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build every member's sdist, and its wheel from that sdist and not from the tree."""
    folder = tmp_path_factory.mktemp("dist")
    for member in MEMBERS:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, member, cwd=folder)
    return folder


@attrs.frozen
class Installed:
    """An environment with nothing but the wheels and what they ask for."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = Installed(tmp_path_factory.mktemp("installed") / "venv")
    venv.create(environment.folder, with_pip=True)
    wheels = [
        f"{name}{'[testing]' if name == 'sojourn' else ''} @ {wheel.as_uri()}"
        for name, wheel in ((distribution(member), wheel_of(dist, member)) for member in MEMBERS)
    ]
    # By file and not by name: a distribution of the same name on an index must not get in.
    run(environment.python, "-m", "pip", "install", "--quiet", *wheels, cwd=dist)
    return environment


def wheel_of(dist: Path, member: Path) -> Path:
    return dist / f"{distribution(member)}-{VERSION}-py3-none-any.whl"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@every_member
def test_the_wheel_holds_the_whole_package_and_nothing_else(dist: Path, member: Path):
    names = {name for name in names_in(wheel_of(dist, member)) if ".dist-info/" not in name}
    assert names == sources(member)
    assert f"{package(member).name}/py.typed" in names


@every_member
def test_the_wheel_holds_licence_and_readme(dist: Path, member: Path):
    info = f"{distribution(member)}-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel_of(dist, member)) as archive:
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload().strip() == (member / "README.md").read_text(encoding="utf-8").strip()


def test_the_wheel_of_the_core_holds_the_migrations(dist: Path):
    names = names_in(wheel_of(dist, ROOT / "core"))
    versions = [
        name for name in names if name.startswith("sojourn/store/migrations/versions/") and name.endswith(".py")
    ]
    assert versions
    assert "sojourn/store/migrations/env.py" in names


@every_member
def test_a_wheel_built_from_the_tree_is_the_one_built_from_the_sdist(dist: Path, member: Path, tmp_path: Path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, member, cwd=tmp_path)
    with zipfile.ZipFile(wheel_of(dist, member)) as one, zipfile.ZipFile(wheel_of(tmp_path, member)) as other:
        assert {name: one.read(name) for name in one.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }


@every_member
def test_the_sdist_holds_what_a_build_needs_and_no_left_overs(dist: Path, member: Path):
    top = f"{distribution(member)}-{VERSION}"
    with tarfile.open(dist / f"{top}.tar.gz") as archive:
        names = set(archive.getnames())
    assert {f"{top}/{name}" for name in ("LICENSE", "README.md", "pyproject.toml", "PKG-INFO")} <= names
    assert {f"{top}/src/{name}" for name in sources(member)} <= names
    assert not [name for name in names if name.endswith((".pyc", ".sqlite", ".orig"))]


def test_the_installed_package_is_the_one_of_the_wheel(installed: Installed, tmp_path: Path):
    for member in MEMBERS:
        name = package(member).name
        where = run(installed.python, "-c", f"import {name}; print({name}.__file__)", cwd=tmp_path).stdout.strip()
        assert Path(where).is_relative_to(installed.folder)


def test_the_installed_requirements_fit(installed: Installed, tmp_path: Path):
    run(installed.python, "-m", "pip", "check", cwd=tmp_path)


def test_the_command_says_its_version(installed: Installed, tmp_path: Path):
    assert VERSION in run(installed.bin / "sojourn", "--version", cwd=tmp_path).stdout


def test_the_command_finds_the_drivers(installed: Installed, tmp_path: Path):
    shown = run(
        installed.bin / "sojourn", "drivers", "--json", cwd=tmp_path, env={"XDG_STATE_HOME": str(tmp_path)}
    ).stdout
    document = json.loads(shown)
    drivers = document["drivers"] if isinstance(document, dict) else document
    found = {driver["name"]: driver for driver in drivers}
    assert set(found) == {member.name for member in MEMBERS[1:]}
    # A driver that could not be loaded is listed too, and with a reason.
    assert not {name: driver["reason"] for name, driver in found.items() if driver.get("reason")}


def test_a_command_runs_with_the_installed_wheels(installed: Installed, tmp_path: Path):
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    project = tmp_path / "project"
    project.mkdir()
    done = run(installed.bin / "sojourn", "run", "--", "sh", "-c", "echo from the wheel", cwd=project, env=state)
    assert done.stdout == "from the wheel\n"


def test_the_contract_tests_pass_with_the_installed_wheels(installed: Installed, tmp_path: Path):
    """`sojourn[testing]` is all they need: no source tree, no setting and no tool of this repository."""
    tests = tmp_path / "contract"
    shutil.copytree(ROOT / "tests/contract", tests, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n", encoding="utf-8")
    (tests / "test_where.py").write_text(
        "import sys\nimport sojourn\n\n\n"
        "def test_the_source_tree_is_out_of_reach():\n"
        f"    assert sojourn.__file__.startswith({str(installed.folder)!r})\n"
        f"    assert not [path for path in sys.path if path.startswith({str(ROOT)!r})]\n",
        encoding="utf-8",
    )
    report = tmp_path / "report.xml"
    run(
        *(installed.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", tests),
        cwd=tmp_path,
        env={"XDG_STATE_HOME": str(tmp_path / "state")},
    )
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {word: int(suite.attrib[word]) for word in ("tests", "errors", "failures", "skipped")}
    assert (count["errors"], count["failures"]) == (0, 0)
    assert count["tests"] - count["skipped"] > 1, "no contract test passed beside the one that looks where sojourn is"
