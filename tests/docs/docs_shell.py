"""One bash for all console blocks of a document, and the rule by which shown output is compared with real output."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path

__all__ = ["Shell", "ShellError", "agrees", "processes_of", "steps_of"]

PATIENCE_SECONDS = 60.0
PLACEHOLDER = "…"


class ShellError(AssertionError):
    """A command did not do what the document says."""


class Shell:
    """A bash that keeps its folder and variables from one command to the next; each command has an empty stdin.

    Args:
        folder: where it begins.
        environment: all of its environment.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit status and what it wrote to stdout and stderr."""
        assert self._process.stdin is not None
        mark = uuid.uuid4().hex
        script = f"{{ {command}\n}} </dev/null\n__status=$?; printf '\\n{mark} %s\\n' $__status; (exit $__status)\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        output = b""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise ShellError(
                    f"`{command}` did not end within {PATIENCE_SECONDS:g} s; it wrote:\n{output}"
                ) from None
            if line is None:
                raise ShellError(f"`{command}` ended the shell; it wrote:\n{output.decode()}")
            if line.startswith(mark.encode()):
                return int(line.split()[1]), output.decode("utf-8", "replace").removesuffix("\n")
            output += line

    def close(self) -> None:
        """End the shell and what it left in its session."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def steps_of(source: str) -> list[tuple[str, str]]:
    """Split a console block into commands (``$ `` and continuations ``> ``) and what is shown below each."""
    steps: list[tuple[list[str], list[str]]] = []
    for line in source.rstrip("\n").split("\n"):
        if line.startswith("$ "):
            steps.append(([line[2:]], []))
        elif not steps:
            raise ShellError(f"a console block begins with a prompt, not with {line!r}")
        elif line.startswith("> ") and not steps[-1][1]:
            steps[-1][0].append(line[2:])
        else:
            steps[-1][1].append(line)
    return [("\n".join(command), "\n".join(shown)) for command, shown in steps]


def agrees(shown: str, real: str) -> bool:
    """Whether real output is what a document shows.

    ``…`` stands for any text within a line, and for any lines where it has one of its own. Two blanks or more stand for any
    number of blanks, because columns are as wide as what they hold. Blanks at the end of a line do not count.
    """
    pattern = ""
    for line in shown.rstrip().split("\n"):
        if line.strip() == PLACEHOLDER:
            pattern += r"(?:[^\n]*\n)*"
        else:
            parts = re.split(r"(\s{2,}|…)", line.rstrip())
            pattern += (
                "".join(".+?" if p == PLACEHOLDER else " +" if p.isspace() else re.escape(p) for p in parts) + r"\n"
            )
    plain = "\n".join(line.rstrip() for line in real.rstrip().split("\n")) + "\n"
    return re.fullmatch(pattern, plain) is not None


def processes_of(home: Path) -> list[int]:
    """Return the processes whose HOME is ``home``."""
    wanted = b"HOME=" + os.fsencode(home)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
