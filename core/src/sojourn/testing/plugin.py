"""The pytest plugin of the contract kit; it costs nothing and does nothing until a contract class is collected."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from sojourn.testing.contract import DriverContract
    from sojourn.testing.report import ContractReport

pytest.register_assert_rewrite("sojourn.testing.contract", "sojourn.testing.kit", "sojourn.testing.places")

UNDECLARED = "undeclared capability: "
_REPORTS: pytest.StashKey[dict[str, ContractReport]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's options."""
    group = parser.getgroup("sojourn", "contract tests of sojourn drivers")
    group.addoption("--sojourn-report", metavar="FILE", help="write what came of each contract class as JSON")
    group.addoption("--sojourn-driver", metavar="NAME", help="test the installed driver NAME; no test file is needed")
    group.addoption("--sojourn-config", metavar="FILE", help="its config as JSON or TOML; without one it is empty")
    group.addoption(
        "--sojourn-capability",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="declare a capability of it, e.g. parallel; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; take the module for an installed driver where one is named."""
    config.addinivalue_line("markers", "sojourn_clause(level, group): a clause of the driver contract")
    config.stash[_REPORTS] = {}
    if config.getoption("--sojourn-driver"):
        config.args = [str(Path(__file__).with_name("installed.py"))]


def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> None:
    """Refuse to collect a contract class from which clauses were removed."""
    if not _is_contract(obj) or not (collector.istestclass(obj, name) or collector.classnamefilter(name)):
        return
    from sojourn.testing.overrides import problems_of

    _refuse(collector, name, list(problems_of(obj)))  # type: ignore[arg-type]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark clauses with what is expected of them; refuse marks that hide one."""
    for item in items:
        cls: Any = getattr(item, "cls", None)
        if not _is_contract(cls) or item.originalname not in _clause_names(cls):  # type: ignore[attr-defined]
            continue
        _check_marks(item, cls)
        link = cls.expected_failures.get(item.originalname)  # type: ignore[attr-defined]
        if link is not None:
            item.add_marker(pytest.mark.xfail(reason=link, strict=True))
        _report(config, item, cls)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what came of a clause."""
    result = yield
    cls: Any = getattr(item, "cls", None)
    name = getattr(item, "originalname", item.name)
    if _is_contract(cls) and name in _clause_names(cls) and (result.when == "call" or result.outcome != "passed"):
        report = _report(item.config, item, cls)
        driver = getattr(getattr(item, "funcargs", {}).get("kit"), "driver", None)
        report.driver = driver.name if driver is not None else report.driver
        report.note(name, *_verdict(result))
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say one line for each contract class."""
    reports = config.stash[_REPORTS].values()
    if reports:
        terminalreporter.section("sojourn driver contract", sep="-")
    for report in reports:
        terminalreporter.write_line(report.line())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report file."""
    path = session.config.getoption("--sojourn-report")
    if path:
        documents = [report.document() for report in session.config.stash[_REPORTS].values()]
        Path(path).write_text(json.dumps({"contracts": documents}, indent=2) + "\n", encoding="utf-8")


# -- helpers ----------------------------------------------------------------------------------------------------------


def _is_contract(obj: object) -> bool:
    # Not imported here: without a contract class in some test module there is nothing to do.
    module = sys.modules.get("sojourn.testing.contract")
    base = getattr(module, "DriverContract", None)
    return base is not None and inspect.isclass(obj) and issubclass(obj, base) and obj is not base


def _clause_names(cls: Any) -> set[str]:
    from sojourn.testing.clauses import clauses_of
    from sojourn.testing.contract import DriverContract

    return {clause.name for clause in clauses_of(DriverContract)}


def _check_marks(item: pytest.Item, cls: type[DriverContract]) -> None:
    from sojourn.testing.overrides import problems_of_marks

    own = [mark.name for mark in item.own_markers]
    above = [mark.name for node, mark in item.iter_markers_with_node() if node is not item]
    name: str = item.originalname  # type: ignore[attr-defined]
    problems = list(problems_of_marks(cls, name, own, above))
    if problems:
        raise pytest.UsageError(f"{cls.__name__}: {'; '.join(problems)}")


def _refuse(collector: Any, name: str, problems: list[str]) -> None:
    if problems:
        raise collector.CollectError(f"contract class {name} is not whole: it " + "; it ".join(problems))


def _report(config: pytest.Config, item: pytest.Item, cls: type[DriverContract]) -> ContractReport:
    from sojourn.testing.clauses import clauses_of
    from sojourn.testing.contract import DriverContract
    from sojourn.testing.report import ContractReport

    title = item.nodeid.rpartition("::")[0].lstrip(":")
    reports = config.stash[_REPORTS]
    if title not in reports:
        reports[title] = ContractReport(title, tuple(clauses_of(DriverContract)))
    return reports[title]


def _verdict(result: pytest.TestReport) -> tuple[Any, str]:
    if result.outcome == "passed":
        return "passed", ""
    if hasattr(result, "wasxfail"):
        return "expected_failure", str(result.wasxfail)
    if result.outcome == "skipped":
        reason = str(result.longrepr[2] if isinstance(result.longrepr, tuple) else result.longrepr)
        reason = reason.removeprefix("Skipped: ")
        return ("undeclared" if reason.startswith(UNDECLARED) else "skipped"), reason
    return "failed", str(getattr(result.longrepr, "reprcrash", result.longrepr)).partition("\n")[0][:500]
