"""What the contract's clauses run: argvs whose behaviour is known, for a POSIX shell or for anything else that can do the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

__all__ = ["Argv", "PosixPrograms", "Programs"]

Argv: TypeAlias = tuple[str, ...]

FLOOD_BLOCK_BYTES = 64 * 1024


class Programs(ABC):
    """The programs of an environment; each method returns an argv."""

    @abstractmethod
    def exit(self, code: int) -> Argv:
        """Exit with ``code``."""

    @abstractmethod
    def say(self, out: str, err: str = "") -> Argv:
        """Write ``out`` to stdout and ``err`` to stderr, exactly."""

    @abstractmethod
    def binary(self, data: bytes) -> Argv:
        """Write ``data`` to stdout, exactly; it is short and may be anything."""

    @abstractmethod
    def args(self, *words: str) -> Argv:
        """Write every word and a NUL after it."""

    @abstractmethod
    def count(self, lines: int) -> Argv:
        """Write the numbers from 1 on, one a line, to stdout and to stderr."""

    @abstractmethod
    def cat(self) -> Argv:
        """Write stdin to stdout."""

    @abstractmethod
    def greet(self, word: str) -> Argv:
        """Write ``word`` at once, then stdin to stdout."""

    @abstractmethod
    def size(self) -> Argv:
        """Write how many bytes stdin has, as a number."""

    @abstractmethod
    def print_env(self, name: str) -> Argv:
        """Write the value of an environment variable, exactly; exit with 1 when it is not set."""

    @abstractmethod
    def pwd(self) -> Argv:
        """Write the working directory and a newline."""

    @abstractmethod
    def whoami(self) -> Argv:
        """Write the user's name and a newline."""

    @abstractmethod
    def sleep(self, seconds: float) -> Argv:
        """Write ``ready`` and a newline, then wait."""

    @abstractmethod
    def kill_self(self, name: str) -> Argv:
        """End by a signal, e.g. ``KILL``."""

    @abstractmethod
    def append(self, path: str, line: str) -> Argv:
        """Append a line to a file."""

    @abstractmethod
    def read(self, path: str) -> Argv:
        """Write a file to stdout; fail when it is not there."""

    @abstractmethod
    def not_found(self) -> Argv:
        """Name a program that does not exist."""

    @abstractmethod
    def not_executable(self) -> Argv:
        """Name a file that exists and cannot be executed."""

    @abstractmethod
    def flood(self, size: int) -> Argv:
        """Write ``first`` and a newline, ``size`` zero bytes (a multiple of 64 KiB), ``last`` and a newline."""

    @abstractmethod
    def background(self, seconds: float, late: str, code: int) -> Argv:
        """Write ``early`` and a newline, leave a child that holds stdout and writes ``late`` after a while; exit with ``code``."""

    @abstractmethod
    def daemon(self) -> Argv:
        """Leave a daemon (own session, no streams of the command) that runs for long; exit with 0."""

    @abstractmethod
    def tree(self) -> Argv:
        """Start descendants that are hard to end, write ``ready`` and a newline when all run, and wait.

        One is in a session of its own, one is orphaned by a double fork, one ignores TERM, all hold the output.
        """

    @abstractmethod
    def polite(self) -> Argv:
        """Write ``ready`` and a newline, wait for TERM, then write ``bye`` and a newline and exit with 7."""


class PosixPrograms(Programs):
    """Programs of a POSIX shell with the usual small tools; works with dash, bash and busybox.

    Args:
        shell: the shell's path or name.
    """

    def __init__(self, shell: str = "sh") -> None:
        self.shell = shell

    def script(self, text: str, *words: str) -> Argv:
        """Run a script with positional parameters."""
        return (self.shell, "-c", text, self.shell, *words)

    def exit(self, code: int) -> Argv:  # noqa: D102 - as said above, and so for all that follow
        return self.script('exit "$1"', str(code))

    def say(self, out: str, err: str = "") -> Argv:  # noqa: D102
        return self.script('printf %s "$1"; printf %s "$2" >&2', out, err)

    def binary(self, data: bytes) -> Argv:  # noqa: D102
        return self.script("printf '" + "".join(f"\\{byte:03o}" for byte in data) + "'")

    def args(self, *words: str) -> Argv:  # noqa: D102
        return self.script('for word; do printf "%s\\000" "$word"; done', *words)

    def count(self, lines: int) -> Argv:  # noqa: D102
        return self.script('i=1; while [ $i -le "$1" ]; do echo $i; echo $i >&2; i=$((i + 1)); done', str(lines))

    def cat(self) -> Argv:  # noqa: D102
        return ("cat",)

    def greet(self, word: str) -> Argv:  # noqa: D102
        return self.script('printf %s "$1"; exec cat', word)

    def size(self) -> Argv:  # noqa: D102
        return ("wc", "-c")

    def print_env(self, name: str) -> Argv:  # noqa: D102
        return self.script(f'if [ "${{{name}+set}}" = set ]; then printf %s "${name}"; else exit 1; fi')

    def pwd(self) -> Argv:  # noqa: D102
        return self.script("pwd")

    def whoami(self) -> Argv:  # noqa: D102
        return ("id", "-un")

    def sleep(self, seconds: float) -> Argv:  # noqa: D102
        return self.script('echo ready; exec sleep "$1"', f"{seconds:g}")

    def kill_self(self, name: str) -> Argv:  # noqa: D102
        return self.script('kill -s "$1" $$; sleep 60', name)

    def append(self, path: str, line: str) -> Argv:  # noqa: D102
        return self.script('printf "%s\\n" "$2" >> "$1"', path, line)

    def read(self, path: str) -> Argv:  # noqa: D102
        return ("cat", path)

    def not_found(self) -> Argv:  # noqa: D102
        return ("/nonexistent/sojourn-contract",)

    def not_executable(self) -> Argv:  # noqa: D102
        return ("/etc/passwd",)

    def flood(self, size: int) -> Argv:  # noqa: D102
        blocks = str(size // FLOOD_BLOCK_BYTES)
        dd = f'dd if=/dev/zero bs={FLOOD_BLOCK_BYTES} count="$1" 2>/dev/null'
        return self.script(f"echo first; {dd}; echo last", blocks)

    def background(self, seconds: float, late: str, code: int) -> Argv:  # noqa: D102
        return self.script('(sleep "$1"; printf %s "$2") & echo early; exit "$3"', f"{seconds:g}", late, str(code))

    def daemon(self) -> Argv:  # noqa: D102
        return self.script(f"{_SETSID}(($S sleep 300 </dev/null >/dev/null 2>&1 &) &); exit 0")

    def tree(self) -> Argv:  # noqa: D102
        deaf = '"$0" -c \'trap "" TERM; while :; do sleep 1; done\''
        lines = (f"{_SETSID}$S sleep 300 &", "((sleep 300 &) &)", f"{deaf} &", f"($S {deaf} &)", "echo ready; wait")
        return self.script("\n".join(lines))

    def polite(self) -> Argv:  # noqa: D102
        return self.script("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 1; done")


_SETSID = "S=; command -v setsid >/dev/null 2>&1 && S=setsid\n"
