"""Every block in the documentation runs, and shows what really happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from docs_blocks import NOT_RUN, BlockError, Runner, parse
from docs_shell import ShellError

from sojourn import SojournError

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "docs/reference/hooks.md"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "core/README.md",
    ROOT / "drivers/local/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINKING = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]

SHOWN_ONLY = {
    "docs/tutorial/first-run.md": {
        "$ python3 -m venv ~/sojourn-venv": "installs packages; tests/integration/test_wheels.py installs into a fresh venv",
    },
}
"""By document, the first line of each block that is shown and not run → why."""
INDENTED = {
    "README.md": "scripts/try and scripts/test install packages and run this test; CI runs both",
    "core/README.md": "installs packages; tests/integration/test_wheels.py does what it says with wheels",
    "drivers/local/README.md": "installs a package; tests/integration/test_wheels.py does what it says with wheels",
}
"""Indented blocks are not run, so no other document may have one."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def beside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[None]]]:
    """The wanted documents that only use a shell: mostly waiting for commands, they run beside the others."""
    chosen = [item.callspec.params["path"] for item in request.session.items if "beside" in item.fixturenames]
    runners = {path: runner_of(path, tmp_path_factory.mktemp("beside")) for path in chosen}
    with ThreadPoolExecutor(1) as pool:
        yield {path: pool.submit(runner.run) for path, runner in runners.items() if runner.only_shell}


def runner_of(path: Path, folder: Path) -> Runner:
    return Runner(parse(path), folder, signatures=path == GENERATED)


# Those that run in this process come first: the others go on meanwhile.
IN_ORDER = sorted(
    DOCUMENTS, key=lambda path: bool(re.search(r"```python\n(?!# [\w.]+\.py\n)", path.read_text("utf-8")))
)[::-1]


@pytest.mark.parametrize("path", IN_ORDER, ids=name_of)
def test_every_block_of_a_document_does_what_it_shows(path: Path, tmp_path: Path, beside: dict[Path, Future[None]]):
    if path in beside:
        beside[path].result()
    else:
        runner_of(path, tmp_path).run()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_block_that_is_not_run_says_so_and_is_listed_here(path: Path):
    found = {
        str(example.parsed).split("\n")[1] for example in parse(path).examples() if example.parsed.startswith(NOT_RUN)
    }
    assert found == set(SHOWN_ONLY.get(name_of(path), {}))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_an_indented_block_is_listed_here(path: Path):
    indented = re.search(r"(?:^|\n)\n {4}(?! *[-*\d])", without_blocks(path.read_text("utf-8")))
    assert bool(indented) == (name_of(path) in INDENTED)


# -- links ------------------------------------------------------------------------------------------------------------


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    # The second heading of one text gets a number.
    return {name + (f"-{before}" if (before := plain[:at].count(name)) else "") for at, name in enumerate(plain)}


@pytest.mark.parametrize("path", LINKING, ids=name_of)
def test_every_link_leads_to_something(path: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(path.read_text("utf-8"))):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if (
            not there.is_relative_to(ROOT)
            or not there.exists()
            or (anchor and anchor not in anchors(there.read_text("utf-8")))
        ):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_from_the_index():
    reached: set[Path] = set()
    waiting = [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)\s#]+)", without_blocks(page.read_text("utf-8")))
        waiting += {(page.parent / target).resolve() for target in targets} & set(DOCUMENTS) - reached
    assert set(DOCUMENTS) - reached <= {ROOT / "README.md", ROOT / "core/README.md"}


# -- the tests of the tests -------------------------------------------------------------------------------------------


def run(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    Runner(parse(page), tmp_path).run()


@pytest.mark.parametrize(
    "text",
    [
        "```\nwhat is this\n```\n",
        "```ruby\nputs 1\n```\n",
        "```text\nno diagram\n```\n",
        "```toml\n= 1\n```\n",
        '```toml\n[environments.x]\ndriver = "local"\ncolour = "red"\n```\n',
        "```json\n{\n```\n",
        "```python\nraise ValueError\n```\n",
        "```python\nprint(1)\n```\n",
        "```python\nprint(1)\n```\n\n```output\n2\n```\n",
        "```output\n2\n```\n",
        "```console\necho no prompt\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ echo one\n```\n",
        "```console\n$ false\n```\n",
        "```bash\nfalse\ntrue\n```\n",
        "```console\n$ setsid -f sleep 60\n```\n",
    ],
)
def test_a_block_that_is_wrong_is_noticed(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("docs_blocks.PROCESS_PATIENCE_SECONDS", 0.2)
    with pytest.raises((BlockError, ShellError, SojournError, ValueError)):
        run(tmp_path, text)


def test_what_is_right_passes(tmp_path: Path):
    run(
        tmp_path,
        """
```python
# made.py
print("from a file")
```

```console
$ python made.py
from a file
$ x=1; cd /
$ echo "$x $PWD"; echo b; echo c >&2
1 …
…
$ (exit 3)
$ echo $?
3
$ cat <<END
> two lines
> END
two lines
```

```python
x = 1
```

```python
print(f"{x}   and {x}")
```

```output
1  and …
```

<!-- diagram -->
```text
a ─► b
```
""",
    )


def test_the_error_names_document_and_line(tmp_path: Path):
    with pytest.raises(BlockError) as failure:
        run(tmp_path, "# Title\n\n```console\n$ echo one\ntwo\n```\n")
    assert failure.value.__notes__ == [f"in {tmp_path}/page.md:3"]
