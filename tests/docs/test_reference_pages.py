"""What the reference pages list is what the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import attrs
import docs_api_page

import sojourn
from sojourn import DriverError, ErrorCode, Settings, errors
from sojourn.records import ActivityEvent, LeaseStatus
from sojourn.store.leases import TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "core/src/sojourn"


def page(name: str) -> str:
    return "\n" + (ROOT / "docs" / name).read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, the first one without its back-ticks."""
    below = text.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", below, flags=re.MULTILINE | re.DOTALL)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].split("\n")[2:]]
    return [[row[0].strip("` "), *row[1:]] for row in cells]


# -- api.md -----------------------------------------------------------------------------------------------------------


def test_the_page_about_the_api_is_what_the_docstrings_say():
    assert docs_api_page.PAGE.read_text("utf-8") == docs_api_page.render(), "run python tests/docs/docs_api_page.py"


def test_the_page_about_the_api_names_everything_that_is_public_once():
    tables = page("reference/api.md").split("\n## Members\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", tables, flags=re.MULTILINE)
    assert sorted(named) == sorted(sojourn.__all__)


# -- errors.md --------------------------------------------------------------------------------------------------------


def test_the_page_about_errors_lists_every_code():
    assert [row[0] for row in rows(page("reference/errors.md"), "## Steps of a run")] == [
        code.value for code in ErrorCode
    ]


def test_the_page_about_errors_lists_every_driver_error_with_its_effect():
    said = {row[0]: (row[1], row[2]) for row in rows(page("reference/errors.md"), "## What drivers raise")}
    classes = [getattr(errors, name) for name in errors.__all__]
    assert said == {
        cls.__name__: (cls.effect.value, "yes" if cls.retryable else "no")
        for cls in classes
        if issubclass(cls, DriverError) and cls is not DriverError
    }


def test_the_page_about_errors_leaves_none_out():
    text = page("reference/errors.md")
    public = [getattr(sojourn, name) for name in sojourn.__all__]
    raised = {cls.__name__ for cls in public if isinstance(cls, type) and issubclass(cls, BaseException)}
    abstract = {"StoreError"}
    assert {name for name in raised - abstract if f"`{name}`" not in text} == set()


def test_the_number_of_tries_on_the_page_is_the_setting():
    assert f"up to {Settings().acquire_tries} tries" in page("reference/errors.md")


# -- settings.md ------------------------------------------------------------------------------------------------------


def test_the_page_about_settings_lists_every_field_with_its_default():
    said = {row[0]: row[1] for row in rows(page("reference/settings.md"), "# Settings")}
    assert said == {
        field.name: f"{field.default:g}"
        if isinstance(field.default, float) and field.default < 1e5
        else str(field.default)
        for field in attrs.fields(Settings)
    }


def test_the_page_about_settings_says_what_the_docstring_says():
    doc = " ".join((Settings.__doc__ or "").split("Args:")[1].split()).replace("``", "`")
    for name, _, meaning in rows(page("reference/settings.md"), "# Settings"):
        assert f"{name}: {meaning}." in doc


# -- activity.md ------------------------------------------------------------------------------------------------------


def test_the_page_about_activity_lists_every_action():
    written = set()
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written |= set(re.findall(r"\A(?:environment|lease|workspace)\.[a-z_]+\Z", node.value))
    said = {row[0] for row in rows(page("reference/activity.md"), "## Actions")}
    assert said == written - {"environment.id", "environment.name"}


def test_the_page_about_activity_lists_every_field_of_an_event():
    said = [row[0] for row in rows(page("reference/activity.md"), "## Fields of an event")]
    assert said == [field.name for field in attrs.fields(ActivityEvent)]


# -- leases.md --------------------------------------------------------------------------------------------------------


def test_the_diagram_of_a_lease_shows_every_transition_and_no_other():
    diagram = page("explanation/leases.md").split("<!-- diagram -->\n```text\n", 1)[1].split("```", 1)[0]
    shown: dict[LeaseStatus, set[LeaseStatus]] = {status: set() for status in LeaseStatus}
    source = None
    for line in diagram.splitlines():
        found = re.fullmatch(r"(\w*)\s*─.*?─►\s*([\w |]+?)(?:\s{2,}.*)?", line)
        assert found is not None or not line.strip(), line
        if found:
            source = LeaseStatus(found[1]) if found[1] else source
            assert source is not None
            shown[source] |= {LeaseStatus(word) for word in found[2].split(" | ")}
    assert shown == {status: set(after) for status, after in TRANSITIONS.items()}
