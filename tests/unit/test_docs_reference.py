"""The page about the driver contract is what its docstrings and records say, and they say enough."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from sojourn import hooks

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/hooks.md"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_generator()

DRIVER = [(hooks.DriverSpec, name) for name in hooks.DRIVER_HOOKS]
PLUGIN = [(hooks.PluginSpec, name) for name in hooks.PLUGIN_HOOKS]
every_hook = pytest.mark.parametrize(("spec", "name"), DRIVER + PLUGIN, ids=[name for _, name in DRIVER + PLUGIN])


def text_of(spec: type, name: str) -> str:
    return " ".join(inspect.cleandoc(getattr(spec, name).__doc__ or "").split())


def gaps(text: str) -> list[str]:
    """List what a hook's docstring leaves open."""
    wanted = {
        "a first sentence": r"^[A-Z][^.]{10,}[.:]",
        "who calls it and when": r"\b[Cc]alled\b",
        "what it returns": r"\b([Rr]eturn(s|ing)?|[Gg]ives?|[Aa]nswers?|[Yy]ields?)\b|`[A-Z]\w+(Result|Receipt|Report|Outcome)`",
        "what to raise": r"\b[Rr]ais(e|es|ing)\b",
    }
    return [what for what, pattern in wanted.items() if not re.search(pattern, text)]


def test_the_committed_page_is_what_the_docstrings_say():
    assert PAGE.read_text(encoding="utf-8") == reference.render(), "run scripts/docs"


def test_the_check_notices_an_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = tmp_path / "hooks.md"
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "PAGE", page)
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    page.write_text(page.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    assert reference.main(["--check"]) == 1


@every_hook
def test_a_hook_says_when_it_is_called_what_it_returns_and_what_to_raise(spec: type, name: str):
    assert gaps(text_of(spec, name)) == []


@pytest.mark.parametrize("text", ["", "Does it.", "Run one command and tell how it ended. Called often. Returns it."])
def test_a_thin_docstring_is_noticed(text: str):
    assert gaps(text)


@pytest.mark.parametrize("name", hooks.DRIVER_HOOKS)
def test_a_driver_hook_says_whether_it_may_be_missing(name: str):
    text = text_of(hooks.DriverSpec, name)
    assert ("**Required.**" in text) == (name in hooks.REQUIRED_HOOKS)
    assert ("*Optional" in text) + ("*Defaulted*" in text) == (name not in hooks.REQUIRED_HOOKS)


@pytest.mark.parametrize("name", hooks.PURE_HOOKS)
def test_a_pure_hook_says_so(name: str):
    assert re.search(r"plain ``def``.*pure", text_of(hooks.DriverSpec, name))


@every_hook
def test_the_page_has_every_hook_and_its_records(spec: type, name: str):
    page = PAGE.read_text(encoding="utf-8")
    assert f"\n### {name}\n" in page
    for record in reference.mentioned(str(inspect.signature(getattr(spec, name)))):
        assert f"\n### {record}\n" in page


def test_every_link_inside_the_page_leads_somewhere():
    page = PAGE.read_text(encoding="utf-8")
    anchors = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", page, flags=re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


def test_the_fields_of_a_record_are_told_with_their_meaning():
    lines = reference.render_record("AcquireRequest")
    assert any(line.startswith("| `spec` | `str` |  | a fingerprint") for line in lines)
    assert "Everything of [ResourceRequest](#resourcerequest), and:" in lines
    assert not any(line.startswith("| `epoch`") for line in lines)
