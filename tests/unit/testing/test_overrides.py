"""Clauses cannot be removed, overridden or hidden without saying so, and what is said has to be true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import pytest
from sojourn.testing import Capabilities, DriverContract, FakeBackDoor, FakeDriver, FakePrograms, FakeWorld

class Base(DriverContract):
    capabilities = Capabilities(parallel=True, survives_restart=True, keeps_files=True)
    programs = FakePrograms()
    def make_driver(self):
        return FakeDriver()
    def make_config(self, tmp_path):
        return {}
"""
LINK = "https://example.org/issues/1"


def run(folder: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own, as an author would."""
    (folder / "test_driver.py").write_text(HEAD + body, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("class TestX(Base):\n    test_exit_status = None\n", "removes test_exit_status"),
        ("class TestX(Base):\n    def test_exit_status(self):\n        pass\n", "overrides test_exit_status"),
        ("class TestX(Base):\n    @pytest.fixture\n    def kit(self):\n        return None\n", "overrides kit"),
        (
            "class TestX(Base):\n    expected_failures = {'test_no_such': 'https://x.org/1'}\n",
            "there is no such clause",
        ),
        ("class TestX(Base):\n    expected_failures = {'test_exit_status': 'flaky'}\n", "has to be a link"),
        (
            "class TestX(Base):\n    pass\npytest.mark.skip(TestX.test_exit_status)\n",
            "marks test_exit_status with skip",
        ),
        (
            "class TestX(Base):\n    pass\npytest.mark.xfail(TestX.test_exit_status)\n",
            "marks test_exit_status with xfail",
        ),
        ("@pytest.mark.xfail\nclass TestX(Base):\n    pass\n", "with xfail"),
        ("pytestmark = pytest.mark.xfail\nclass TestX(Base):\n    pass\n", "with xfail"),
    ],
)
def test_a_hidden_clause_is_an_error(tmp_path: Path, body: str, complaint: str):
    done = run(tmp_path, body, "-k", "test_exit_status or test_it_loads")
    assert done.returncode not in (0, 5), done.stdout
    assert complaint in done.stdout + done.stderr


def test_an_expected_failure_that_passes_fails(tmp_path: Path):
    body = f"class TestX(Base):\n    expected_failures = {{'test_exit_status': {LINK!r}}}\n"
    done = run(tmp_path, body, "-k", "test_exit_status")
    assert done.returncode == 1
    assert "XPASS(strict)" in done.stdout


def test_an_expected_failure_that_fails_is_reported_with_its_link(tmp_path: Path):
    body = (
        f"class TestX(Base):\n    expected_failures = {{'test_exit_status': {LINK!r}}}\n"
        "    def test_exit_status(self, kit):\n        raise AssertionError\n"
    )
    done = run(tmp_path, body, "-k", "test_exit_status or test_it_loads", "-rx", "--sojourn-report", "report.json")
    assert done.returncode == 0, done.stdout
    assert LINK in done.stdout
    contract = json.loads((tmp_path / "report.json").read_text())["contracts"][0]
    assert contract["clauses"]["test_exit_status"] == {
        "group": "execute",
        "level": "L2",
        "verdict": "expected_failure",
        "reason": f"reason: {LINK}" if contract["clauses"]["test_exit_status"]["reason"].startswith("reason") else LINK,
    }
    assert contract["clauses"]["test_it_loads"]["verdict"] == "passed"
    assert contract["levels"]["L1"]["not_run"] > 30
    assert (contract["conformant"], contract["driver"]) == (None, "fake")


def test_tests_of_the_authors_own_are_welcome(tmp_path: Path):
    body = "class TestX(Base):\n    @pytest.mark.skip\n    def test_mine(self):\n        pass\n"
    assert run(tmp_path, body, "-k", "test_mine or test_it_loads").returncode == 0


def test_the_summary_says_one_line_for_each_class(tmp_path: Path):
    done = run(tmp_path, "class TestX(Base):\n    pass\n", "-k", "config and L1 or test_it_loads")
    assert "test_driver.py::TestX (driver fake): L1 " in done.stdout
    assert done.stdout.count("(driver fake)") == 1


def test_levels_can_be_chosen(tmp_path: Path):
    done = run(tmp_path, "class TestX(Base):\n    pass\n", "-m", "sojourn_clause(level='L5')")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "L1 0/" in done.stdout


def test_without_a_contract_class_nothing_is_said(tmp_path: Path):
    (tmp_path / "test_plain.py").write_text("import sys\n\ndef test_it():\n    assert 'attrs' not in sys.modules\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_plain.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "sojourn" not in done.stdout


def test_an_installed_driver_needs_no_test_file(tmp_path: Path):
    (tmp_path / "config.toml").write_text(f'root = "{tmp_path}/root"\n', encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--sojourn-driver", "local"]
    command += [
        "--sojourn-config",
        "config.toml",
        "--sojourn-capability",
        "parallel",
        "-k",
        "exit_status or another_user",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TestInstalledDriver (driver local): L1" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout


def test_fakes_need_no_pytest():
    program = (
        "import sys; from sojourn.testing import ChaosDriver, FakeDriver; FakeDriver(); print('pytest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
