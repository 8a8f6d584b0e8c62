"""The scene of a crash: a store, a source tree, processes to kill, and the look around afterwards that finds every leftover."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import select
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from sojourn import Lease, Orchestrator, ReapReport, Settings

HERE = Path(__file__).parent
FILES = 60
CLOCK_TICK_SECONDS = 0.01


def git(folder: Path, *arguments: str) -> str:
    """Run git; returns what it wrote."""
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def make_source(folder: Path) -> Path:
    """Make a repository with history, changes that nobody committed, links and modes."""
    (folder / "pkg" / "deep").mkdir(parents=True)
    for number in range(FILES):
        (folder / "pkg" / "deep" / f"module_{number:03}.py").write_text(f"VALUE = {number}\n" * 20)
    (folder / "tool.sh").write_text("#!/bin/sh\nexit 0\n")
    (folder / "tool.sh").chmod(0o755)
    (folder / "link").symlink_to("pkg/deep")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    (folder / "tool.sh").write_text("#!/bin/sh\nexit 1\n")
    (folder / "untracked.txt").write_text("not committed\n")
    return folder


def fingerprint(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, modification time and digest of everything in a tree, the index and the branch of its repository included.

    What git keeps of other branches and of objects is left out: a run's work is saved there on purpose.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0] == ".git" and str(inside) not in (".git/index", ".git/HEAD", ".git/refs/heads/main"):
            continue
        facts = path.lstat()
        if stat.S_ISLNK(facts.st_mode):
            content = os.readlink(path).encode()
        elif stat.S_ISREG(facts.st_mode):
            content = path.read_bytes()
        else:
            content = b""
        found[str(inside)] = (facts.st_mode, facts.st_mtime_ns, hashlib.sha256(content).hexdigest())
    return found


def processes(found: Callable[[bytes, bytes], bool]) -> dict[int, str]:
    """Return pid and command line of every living process for which ``found(environ, cmdline)`` holds; ourselves left out."""
    result = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            environ = Path(f"/proc/{name}/environ").read_bytes()
            cmdline = Path(f"/proc/{name}/cmdline").read_bytes()
            state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state not in "ZX" and found(environ, cmdline):
            result[int(name)] = cmdline.replace(b"\0", b" ").decode("utf-8", "replace")
    return result


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until ``condition()`` gives something true; give that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(CLOCK_TICK_SECONDS)
    return value


class Victims:
    """Starts the processes that are to be killed, each a fork of one that has everything imported; see `victim.serve`."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "victim.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._ended: dict[int, int] = {}
        self._lines = b""

    def start(self, plan: dict[str, Any]) -> Victim:
        """Start a process that follows ``plan``."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(plan).encode() + b"\n")
        self._server.stdin.flush()
        while True:
            word, pid, *_ = self._next(20)
            if word == b"started":
                return Victim(self, int(pid))

    def status(self, pid: int, seconds: float) -> int | None:
        """Wait at most so long for the end of a process; its exit status as of `subprocess`, None when it goes on."""
        deadline = time.monotonic() + seconds
        while pid not in self._ended:
            left = deadline - time.monotonic()
            if left < 0 or not self._next(left):
                return None
        return self._ended[pid]

    def _next(self, seconds: float) -> list[bytes]:
        """Read one line; one that tells of an end is remembered. Nothing when none comes in time."""
        assert self._server.stdout is not None
        while b"\n" not in self._lines:
            if not select.select([self._server.stdout], [], [], seconds)[0]:
                return []
            piece = os.read(self._server.stdout.fileno(), 65536)
            assert piece, "the process that starts the others has died"
            self._lines += piece
        line, _, self._lines = self._lines.partition(b"\n")
        words = line.split()
        if words[0] == b"ended":
            self._ended[int(words[1])] = int(words[2])
        return words

    def close(self) -> None:
        """End the server; what it started must have ended."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()


@attrs.frozen
class Victim:
    """One started process."""

    victims: Victims = attrs.field(repr=False)
    pid: int

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; its exit status, negative for a signal."""
        return self.victims.status(self.pid, seconds)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal it and see it end. It is nobody else's pid: its parent does not reap it before it has ended."""
        if self.wait(0) is None:
            os.kill(self.pid, number)
        assert self.wait(15) is not None, f"process {self.pid} did not end"


class Scene:
    """One store, one environment on the local driver, one source tree; processes are started into it and killed."""

    def __init__(self, folder: Path, victims: Victims) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.store = folder / "store" / "sojourn.db"
        self.marker = f"marker-{secrets.token_hex(8)}"
        self.canary = f"canary-{secrets.token_hex(16)}"
        self.path = os.environ["PATH"]
        self.victims = victims
        self.living: list[Victim] = []
        for name in ("said", "started", "state"):
            (folder / name).mkdir()
        self.source = make_source(folder / "source")
        self.before = fingerprint(self.source)
        asyncio.run(self._set_up())

    async def _set_up(self) -> None:
        async with Orchestrator.open(self.store) as orchestrator:
            config = {"root": str(self.root), "release_grace_seconds": 0.3}
            await orchestrator.environments.create("here", "local", config)

    # -- commands -----------------------------------------------------------------------------------------------------

    def short(self, name: str) -> list[str]:
        """A command that notes its name in the ledger, leaves uncommitted work in its folder, and ends.

        In the user's own tree it leaves nothing, so that the tree can be compared.
        """
        text = 'echo "$2" >> "$0"; [ "$(pwd -P)" = "$1" ] || echo work > "left-by-$2.txt"'
        return ["sh", "-c", text, str(self.folder / "ledger"), str(self.source.resolve()), name]

    def plain(self, name: str) -> list[str]:
        """A command that notes its name in the ledger and stays, with a child."""
        text = 'echo "$3" >> "$0"; echo work > "left-by-$3.txt"; sleep 1000 & : > "$1/started/$3"; wait'
        return ["sh", "-c", text, *self._names(name)]

    def _names(self, name: str) -> list[str]:
        # The name stays last: there `victim.py` makes it unique.
        return [str(self.folder / "ledger"), str(self.folder), self.marker, name]

    def stubborn(self, name: str) -> list[str]:
        """A command whose processes leave session and parent, ignore TERM, and one of them its environment."""
        return [sys.executable, "-I", "-S", str(HERE / "stubborn.py"), *self._names(name)]

    # -- processes ----------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The variables of the processes of this scene; the secret's value is in them and nowhere else."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOJOURN_", "PYTEST_"))}
        return kept | {
            "XDG_STATE_HOME": str(self.folder / "state"),
            "SOJOURN_TEST_CANARY": self.canary,
            "PATH": self.path,
        }

    def start(self, point: str = "", action: str = "session", **fields: Any) -> Victim:
        """Start a process that follows a plan.

        Args:
            point: where it kills itself; see `victim`.
            action: ``session``, ``leave`` (a lease without a session, so that closing gives it back), ``repeat`` (one
                session after the other until it is killed) or ``reap``.
            fields: ``mode``, ``commands``, ``provision``, ``seed``.
        """
        plan = {"mode": "copy", "commands": [], "provision": None, "seed": 0, "source": str(self.source)}
        plan |= {"point": point, "action": action, "store": str(self.store), "folder": str(self.folder)}
        victim = self.victims.start({**plan, **fields, "environment": self.environment()})
        self.living.append(victim)
        return victim

    def run(self, point: str, action: str = "session", **fields: Any) -> None:
        """Run a process to the point where it dies."""
        status = self.start(point, action, **fields).wait(30)
        log = (self.folder / "log").read_text(errors="replace")[-3000:]
        assert status in (-signal.SIGKILL, 70), f"{point} was not reached (status {status}):\n{log}"

    def kill_while_running(self, victim: Victim, *names: str) -> None:
        """Wait until the commands of these names run, look for the secret in every argv, then kill their orchestrator."""
        self.running(*names)
        assert not processes(lambda _, cmdline: self.canary.encode() in cmdline), "the secret is in an argv"
        victim.kill()

    def running(self, *names: str) -> None:
        """Wait until the commands of these names run."""
        for name in names:
            until((self.folder / "started" / name).exists, f"command {name} started")

    def said(self, word: str, victim: Victim) -> bool:
        """Whether the process has said how far it is: ``open`` or ``closed``."""
        return (self.folder / "said" / f"{word}-{victim.pid}").exists()

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def reap(self, **arguments: Any) -> ReapReport:
        """Sweep once, by an orchestrator that is opened for it and closed again."""

        async def sweep() -> ReapReport:
            async with Orchestrator.open(self.store, settings=Settings(grace_seconds=0.3)) as orchestrator:
                return await orchestrator.reap(**arguments)

        return asyncio.run(sweep())

    def leases(self) -> list[Lease]:
        """Every row."""

        async def read() -> list[Lease]:
            async with Orchestrator.open(self.store) as orchestrator:
                return await orchestrator.leases.list()

        return asyncio.run(read())

    def sql(self, statement: str, *values: Any) -> None:
        """Change a row as nothing else would."""
        with sqlite3.connect(self.store) as connection:
            assert connection.execute(statement, values).rowcount == 1
        connection.close()

    def value(self, query: str) -> Any:
        """Read one value past the library."""
        connection = sqlite3.connect(self.store)
        ((value,),) = connection.execute(query)
        connection.close()
        return value

    def slow_git(self, words: str, seconds: float) -> None:
        """Let processes started from now on meet a git that takes its time before it does ``words``."""
        folder = self.folder / "bin"
        folder.mkdir()
        real, started, done = shutil.which("git"), self.folder / "started" / "git", self.folder / "git-done"
        script = folder / "git"
        script.write_text(
            f'#!/bin/sh\ncase "$*" in *\'{words}\'*)\n  : > {started}; sleep {seconds:g}\n  {real} "$@"; status=$?\n'
            f'  : > {done}; exit $status;;\nesac\nexec {real} "$@"\n'
        )
        script.chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    def git_is_done(self) -> bool:
        """Whether the slow git has done its work, or was ended before."""
        script = os.fsencode(self.folder / "bin" / "git")
        return (self.folder / "git-done").exists() or not processes(lambda _, cmdline: script in cmdline)

    def lines(self, name: str) -> list[str]:
        """The lines of one of the files that the processes write."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def leftovers(self) -> list[str]:
        """Everything that a crash and one sweep may not leave, as sentences; nothing at all is the promise."""
        found = []
        rows = self.leases()
        for lease in rows:
            if not lease.status.terminal or lease.cleanup_status != "success":
                found.append(f"lease {lease.id} is {lease.status}, clean-up {lease.cleanup_status}: {lease.last_error}")
        found += [f"{path} is still there" for path in sorted(self.root.glob("*"))] if self.root.exists() else []
        marks = [f"SOJOURN_RESOURCE_ID={lease.resource_id}\0".encode() for lease in rows]
        root = os.fsencode(self.root)
        for pid, cmdline in processes(
            lambda environ, cmdline: (
                any(mark in environ for mark in marks) or self.marker.encode() in cmdline or root in cmdline
            )
        ).items():
            found.append(f"process {pid} is alive: {cmdline}")
        found += self._worktrees_left()
        found += [f"{line} ran {count} times" for line, count in Counter(self.lines("ledger")).items() if count > 1]
        if fingerprint(self.source) != self.before:
            found.append("the source tree was changed")
        found += self._secrets_told()
        return found

    def _worktrees_left(self) -> list[str]:
        listed = git(self.source, "worktree", "list", "--porcelain").split("\n\n")
        found = [f"git worktree {entry!r} is registered" for entry in listed[1:] if entry.strip()]
        folder = self.folder / "state" / "sojourn" / "worktrees"
        return found + [f"{path} is still there" for path in sorted(folder.glob("*"))]

    def _secrets_told(self) -> list[str]:
        files = [*self.store.parent.glob("*"), self.folder / "log", self.folder / "calls"]
        canary = self.canary.encode()
        return [f"the secret is in {path}" for path in files if path.is_file() and canary in path.read_bytes()]

    def branches(self) -> list[str]:
        """The branches that runs left in the repository, their work saved on them."""
        return git(self.source, "for-each-ref", "--format=%(refname:short)", "refs/heads/sojourn/").split()

    def saved(self, name: str) -> bool:
        """Whether what the command called ``name`` left uncommitted is on the one branch that is left."""
        (branch,) = self.branches()
        return git(self.source, "show", f"{branch}:left-by-{name}.txt") == "work\n"

    def close(self) -> None:
        """End what the test started, whatever became of the test."""
        for victim in self.living:
            victim.kill()
        marks = (f"{self.folder}/".encode(), self.marker.encode())
        for pid in processes(lambda _, cmdline: any(mark in cmdline for mark in marks)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
