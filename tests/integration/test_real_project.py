"""The test suite of a real project, not ours, comes out through ``sojourn run`` as it does without."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PROJECT, VERSION = "pluggy", "1.6.0"
VARIABLES = {"SETUPTOOLS_SCM_PRETEND_VERSION": VERSION, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
# What the project needs to be built and tested, fetched once for all the places that are provisioned here.
NEEDS = ("setuptools>=65", "setuptools-scm[toml]>=8.0", "pytest<10")
PROVISION = (
    f'{sys.executable} -m venv --without-pip "$TMPDIR/venv" && {sys.executable} -m pip --python "$TMPDIR/venv/bin/python" '
    "install --quiet --no-compile --no-index --find-links {wheels} . 'pytest<10'"
)
TESTS = ["sh", "-c", 'exec "$TMPDIR/venv/bin/python" -m pytest -q -p no:cacheprovider testing']
BROKEN_TEST = "testing/test_hookrelay.py"

# Fetching the project and what it needs takes as long as the index takes.
pytestmark = pytest.mark.timeout(300)


@attrs.frozen
class Outcome:
    """How a test run ended, without what differs from run to run."""

    status: int
    counts: dict[str, int]

    @classmethod
    def of(cls, status: int, output: str) -> Outcome:
        summary = next((line for line in reversed(output.splitlines()) if " in " in line), "")
        return cls(
            status, {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped)", summary)}
        )


@attrs.frozen
class Project:
    """The project's repository, and the state directory and temporary directory of the runs."""

    source: Path
    state: Path
    wheels: Path

    @property
    def provision(self) -> str:
        return PROVISION.format(wheels=self.wheels)

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.source, folder / "source", symlinks=True)
        return Project(folder / "source", folder / "state", self.wheels)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOJOURN_", "PYTEST_"))}
        return kept | {"XDG_STATE_HOME": str(self.state)} | more

    def sojourn(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sojourn", *words],
            cwd=self.source,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, mode: str) -> subprocess.CompletedProcess[str]:
        variables = [word for name, value in VARIABLES.items() for word in ("-e", f"{name}={value}")]
        return self.sojourn("run", "--mode", mode, "--provision", self.provision, *variables, "--", *TESTS)

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(["git", *identity, *words], cwd=self.source, check=True, capture_output=True, text=True)
        return done.stdout

    def fingerprint(self) -> dict[str, str]:
        """The tree, ignored files included; of the repository itself what its user sees."""
        found = {
            str(path.relative_to(self.source)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.source.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(self.source).parts
        }
        return found | {
            words: self.git(*words.split()) for words in ("status --porcelain", "branch --list", "worktree list")
        }

    def places_left(self) -> list[Path]:
        folder = self.state / "sojourn"
        return [*(folder / "local").glob("*"), *(folder / "worktrees").glob("*")]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project as its authors released it, made a repository with one commit; and the wheels of what it needs."""
    folder = tmp_path_factory.mktemp("download")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest"]
    wheels = [*download, str(folder / "wheels"), *NEEDS]
    source = [*download, str(folder), f"{PROJECT}=={VERSION}", "--no-deps", "--no-binary", PROJECT]
    for command in (wheels, source):
        subprocess.run(command, check=True, timeout=120, env=os.environ | VARIABLES)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    project = Project(folder / f"{PROJECT}-{VERSION}", folder / "state", folder / "wheels")
    project.git("init", "--quiet", "--initial-branch=main")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "as released")
    return project


@pytest.fixture(scope="module")
def direct(unpacked: Project, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """How the suite comes out when it is run without us."""
    folder = tmp_path_factory.mktemp("direct")
    project = unpacked.copy(folder)
    environment = project.environment(TMPDIR=str(folder), **VARIABLES)
    subprocess.run(["bash", "-lc", project.provision], cwd=project.source, env=environment, check=True)
    done = subprocess.run(TESTS, cwd=project.source, env=environment, capture_output=True, text=True, check=False)
    outcome = Outcome.of(done.returncode, done.stdout)
    assert outcome.status == 0, done.stdout
    assert outcome.counts["passed"] > 100
    return outcome


@pytest.fixture
def project(unpacked: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of the repository of a test's own; afterwards it must be as it was, and no place may be left."""
    project = unpacked.copy(tmp_path)
    yield project
    assert project.places_left() == []
    assert project.sojourn("reap").returncode == 0


@pytest.mark.parametrize("mode", ["copy", "git_worktree"])
def test_the_suite_comes_out_as_without_us(project: Project, direct: Outcome, mode: str) -> None:
    before = project.fingerprint()
    done = project.run(mode)
    assert Outcome.of(done.returncode, done.stdout) == direct, done.stdout + done.stderr
    assert project.fingerprint() == before


def test_a_broken_test_is_seen(project: Project, direct: Outcome) -> None:
    """Its name is in the output, and the exit status is the suite's own; the change need not be committed."""
    with (project.source / BROKEN_TEST).open("a") as file:
        file.write("\n\ndef test_broken_on_purpose() -> None:\n    assert 1 == 2\n")
    before = project.fingerprint()
    done = project.run("copy")
    assert Outcome.of(done.returncode, done.stdout) == Outcome(1, {**direct.counts, "failed": 1}), done.stderr
    assert f"FAILED {BROKEN_TEST}::test_broken_on_purpose" in done.stdout
    assert project.fingerprint() == before
