"""A driver of somebody else: built, installed beside the core's wheel into an empty environment, found, and tested there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/third_party_driver"

# Fetching the dependencies into the empty environment takes as long as the index takes.
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without the source tree in reach; a failure shows all that it said."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the interpreter of an environment with the core and the example, both from wheels."""
    folder = tmp_path_factory.mktemp("third-party")
    for source in (ROOT / "core", EXAMPLE):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    core, example = (next((folder / "dist").glob(f"{name}-*.whl")) for name in ("sojourn", "sojourn_example_scratch"))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    # By file and not by name: a distribution of the same name on an index must not get in.
    wheels = (f"sojourn[testing] @ {core.as_uri()}", f"sojourn-example-scratch @ {example.as_uri()}")
    run(python, "-m", "pip", "install", "--quiet", *wheels, cwd=folder)
    return python


def test_the_core_finds_it(python: Path, tmp_path: Path):
    program = "from sojourn.drivers import DriverRegistry as R; print(R().names(), R().get('scratch').info.provider)"
    assert run(python, "-c", program, cwd=tmp_path) == "['scratch'] scratch\n"


def test_it_keeps_the_contract(python: Path, tmp_path: Path):
    tests = tmp_path / "tests"
    shutil.copytree(EXAMPLE / "tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=tmp_path)
    assert "TestScratch (driver scratch): L1 " in said
    assert "conformant L6" in said


def test_the_command_line_is_enough(python: Path, tmp_path: Path):
    """An installed driver is tested without any test file of its own."""
    (tmp_path / "scratch.toml").write_text(f'root = "{tmp_path}/scratch"\n', encoding="utf-8")
    options = ("--sojourn-driver", "scratch", "--sojourn-config", "scratch.toml", "-k", "exit_status or idempotent")
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, cwd=tmp_path)
    assert "TestInstalledDriver (driver scratch)" in said
