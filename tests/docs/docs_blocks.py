"""How each kind of fenced block in a document is run or checked; see docs/index.md for what readers are told about it."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import sys
import time
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
from docs_shell import PLACEHOLDER, Shell, agrees, processes_of, steps_of
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from sojourn import Settings
from sojourn.declarations import Declaration, read_declaration
from sojourn.drivers import DriverRegistry

__all__ = ["NOT_RUN", "BlockError", "Runner", "blocks", "parse"]

INFO = re.compile(r"(?P<language>[^\s`]*)(?P<rest>[^\n]*)$\n", re.MULTILINE)
FILE = re.compile(r"# (?P<name>[\w./-]+\.(?:py|toml|sh|ini|txt))\n")
NOT_RUN = "# not run by the tests: "
"""How a block begins that is shown and not run; each of them is listed in test_documents.py."""
DIAGRAM = "<!-- diagram -->"
PROCESS_PATIENCE_SECONDS = 5.0
DECLARES = frozenset(field.name for field in attrs.fields(Declaration))


class BlockError(AssertionError):
    """A block that is not what the document says, or not of a kind that can be checked."""


def blocks(document: Document) -> Iterable[Region]:
    """The sybil parser: every fenced block, whatever its language."""
    for region in RawFencedCodeBlockLexer(INFO)(document):
        region.parsed = region.lexemes["source"]
        region.evaluator = _evaluate
        yield region


def parse(path: Path) -> Document:
    """Return a document with its blocks."""
    return Document.parse(str(path), blocks)


def _evaluate(example: Example) -> None:
    example.namespace["__runner__"].evaluate(example)


class Runner:
    """Runs the blocks of one document, in their order, in one namespace, one shell, one home and one folder.

    Args:
        document: as parsed.
        folder: an empty folder; home and working directory are made in it.
        signatures: whether ``text`` blocks are signatures, as on the generated page.
    """

    def __init__(self, document: Document, folder: Path, *, signatures: bool = False) -> None:
        self._document = document
        self._signatures = signatures
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self._shell: Shell | None = None
        self._printed: str | None = None
        self._globals = {"__name__": "__main__"}
        self.environment = {
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / ".local/state"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "LANG": "C.UTF-8",
            "USER": os.environ.get("USER", "user"),
            "LOGNAME": os.environ.get("LOGNAME", os.environ.get("USER", "user")),
            "SHELL": "/bin/bash",
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONWARNINGS": "error",
        }

    @property
    def only_shell(self) -> bool:
        """Whether nothing of the document runs in this process, so that it may run beside others."""
        python = [example for example in self._document.examples() if example.region.lexemes["language"] == "python"]
        return all(FILE.match(str(example.parsed)) for example in python)

    def run(self) -> None:
        """Run all blocks.

        Raises:
            BlockError: with file and line.
        """
        self._document.namespace["__runner__"] = self
        try:
            with contextlib.nullcontext() if self.only_shell else self._surroundings():
                for example in self._document.examples():
                    self._located(example)
        finally:
            if self._shell is not None:
                self._shell.close()
        self._check_left_over()

    def _located(self, example: Example) -> None:
        try:
            example.evaluate()
        except Exception as error:
            error.add_note(f"in {example.path}:{example.line}")
            raise

    def evaluate(self, example: Example) -> None:
        """Run or check one block by its language."""
        language, source = str(example.region.lexemes["language"]), str(example.parsed)
        if source.startswith(NOT_RUN):
            return
        known = {
            "python": self._python,
            "output": self._output,
            "console": self._console,
            "bash": self._bash,
            "toml": self._toml,
            "json": self._json,
            "text": self._text,
        }
        if language not in known:
            raise BlockError(f"a block of an unknown kind: {language!r}; known are {', '.join(known)}")
        known[language](source, example)

    # -- the kinds ----------------------------------------------------------------------------------------------------

    def _python(self, source: str, example: Example) -> None:
        """Run it, or keep it as the file that its first line names."""
        if self._kept(source):
            compile(source, example.path, "exec")
            return
        padded = "\n" * example.line + source
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(padded, example.path, "exec"), self._globals)
        self._printed = printed.getvalue()
        if self._printed.strip() and self._next_language(example) != "output":
            raise BlockError(f"prints, and no output block shows it:\n{self._printed}")

    def _output(self, source: str, example: Example) -> None:
        """Compare it with what the python block before it printed."""
        if self._printed is None:
            raise BlockError("an output block belongs directly below a python block")
        if not agrees(source, self._printed):
            raise BlockError(f"shown:\n{source}\nprinted:\n{self._printed}")
        self._printed = None

    def _console(self, source: str, example: Example) -> None:
        """Run the commands behind the prompts; a status that is not 0 has to be shown by ``echo $?``."""
        self._shell = self._shell or Shell(self.work, self.environment)
        steps = steps_of(source)
        for index, (command, shown) in enumerate(steps):
            status, real = self._shell.run(command)
            if not agrees(shown, real):
                raise BlockError(f"$ {command}\nshown:\n{shown}\nreal:\n{real}")
            followed = index + 1 < len(steps) and steps[index + 1][0] == "echo $?"
            if status and not followed and command != "echo $?":
                raise BlockError(f"$ {command}\nexit status {status}, and the block does not show it:\n{real}")

    def _bash(self, source: str, example: Example) -> None:
        """With prompts a console block; without them a script, each line of which has to succeed."""
        if self._kept(source):
            return
        if source.startswith("$ "):
            self._console(source, example)
            return
        self._shell = self._shell or Shell(self.work, self.environment)
        for command in _logical_lines(source):
            status, real = self._shell.run(command)
            if status:
                raise BlockError(f"{command}\nexit status {status}:\n{real}")

    def _toml(self, source: str, example: Example) -> None:
        """Parse it; what declares environments is read as sojourn does."""
        self._kept(source)
        data = tomllib.loads(source)
        in_pyproject = "sojourn" in data.get("tool", {})
        if in_pyproject or DECLARES & data.keys():
            file = self.home / ("pyproject.toml" if in_pyproject else "sojourn.toml")
            file.write_text(source, "utf-8")
            read_declaration(file, DriverRegistry(None, Settings()))
            file.unlink()

    def _json(self, source: str, example: Example) -> None:
        """Parse it, with any value for the placeholder."""
        json.loads(source.replace(f'"{PLACEHOLDER}"', "null").replace(PLACEHOLDER, "null"))

    def _text(self, source: str, example: Example) -> None:
        """A diagram, marked as one in the line above; or, on the generated page, the signature of a hook."""
        above = self._document.text[: example.start].rstrip().rsplit("\n", 1)[-1]
        if self._signatures:
            ast.parse(f"def {source.strip()}: ...")
        elif above != DIAGRAM:
            raise BlockError(f"a text block is a diagram, with {DIAGRAM} above it")

    # -- what they share ----------------------------------------------------------------------------------------------

    def _kept(self, source: str) -> bool:
        named = FILE.match(source)
        if named is None:
            return False
        file = self.work / named["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, "utf-8")
        return True

    def _next_language(self, example: Example) -> str | None:
        later = [region for start, region in self._document.regions if start > example.start]
        return str(later[0].lexemes["language"]) if later else None

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """The python blocks see the home and the folder that the shell sees."""
        before, folder = dict(os.environ), Path.cwd()
        for name in [name for name in os.environ if name.startswith(("SOJOURN_", "GIT_", "XDG_"))]:
            del os.environ[name]
        os.environ.update({name: value for name, value in self.environment.items() if name != "PYTHONWARNINGS"})
        os.chdir(self.work)
        try:
            yield
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)

    def _check_left_over(self) -> None:
        """No process of the document may be left; a supervisor may take a moment."""
        until = time.monotonic() + PROCESS_PATIENCE_SECONDS
        while left := processes_of(self.home):
            if time.monotonic() > until:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
                raise BlockError(f"the document left processes: {left}")
            time.sleep(0.05)


def _logical_lines(source: str) -> list[str]:
    """Split a script without prompts into commands: a line that bash cannot take alone goes on in the next."""
    if "<<" in source or re.search(r"^(for|while|if|case|until)\b|\(\)\s*\{", source, re.MULTILINE):
        return [source]
    return [line for line in source.replace("\\\n", " ").split("\n") if line.strip() and not line.startswith("#")]
