"""What all tests share: which of them only a thorough run needs."""

from __future__ import annotations

import pytest

THOROUGH = frozenset(
    {
        "test_bench",
        "test_chaos_delegation",
        "test_declared",
        "test_follow",
        "test_mutants",
        "test_overrides",
        "test_terminal",
        "test_third_party",
    }
)
"""Modules that show at length what others show in short: that the contract kit finds each bad driver and each hidden clause,
that a foreign package and a delegating driver pass it too, that the command line's corners hold, that the benchmark runs. Left
out unless asked for by --thorough or by name."""

THOROUGH_TESTS = frozenset({"test_the_contract_tests_pass_with_the_installed_wheels"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --thorough."""
    parser.addoption("--thorough", action="store_true", help="run the tests that take long and repeat others, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the thorough ones out unless somebody asked for them."""
    left_out = [] if config.getoption("--thorough") else [item for item in items if _is_thorough(item, config)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(map(id, left_out))
        items[:] = [item for item in items if id(item) not in gone]


def _is_thorough(item: pytest.Item, config: pytest.Config) -> bool:
    named = any(item.path.name in argument for argument in config.args)
    thorough = item.path.stem in THOROUGH or getattr(item, "originalname", item.name) in THOROUGH_TESTS
    return thorough and not named
