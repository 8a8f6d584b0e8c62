"""The ``sojourn`` command as a real process, with a home of its own; a process that it leaves behind fails the test."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from sojourn.cli import main

TIMEOUT_SECONDS = 60
SETTLE_SECONDS = 5


def processes(marker: str) -> list[int]:
    """List the processes whose arguments or environment hold ``marker``."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = Path(entry.path, "cmdline").read_bytes() + Path(entry.path, "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in text:
                found.append(int(entry.name))
    return found


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until ``condition`` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.02)
    return value


class Cli:
    """Runs ``python -m sojourn`` in a fresh home and state directory.

    Attributes:
        work: the current directory of the commands.
        state: sojourn's state directory.
        env: the environment of the commands.
    """

    words: Sequence[str] = (sys.executable, "-m", "sojourn")

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.state = folder / "state" / "sojourn"
        self.marker = str(folder)
        for path in (self.work, folder / "home"):
            path.mkdir(parents=True)
        names = ("PATH", "LANG", "LC_ALL", "PYTHONPATH")
        self.env = {name: os.environ[name] for name in names if name in os.environ}
        self.env |= {"HOME": str(folder / "home"), "XDG_STATE_HOME": str(folder / "state"), "TERM": "xterm"}
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(
        self, *arguments: str | bytes, stdin: bytes | int | None = b"", cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        return subprocess.run(
            [*self.words, *arguments],
            cwd=cwd or self.work,
            env=self.env | env,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            **given,
        )

    def look(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run one that only looks, or stores something, in this process: most of a process's time are its imports.

        What runs or ends commands, or has another Python path, gets a process all the same.
        """
        other_path = (self.env | env).get("PYTHONPATH") != os.environ.get("PYTHONPATH")
        if other_path or self.words != Cli.words or {"run", "reap", "release"} & set(arguments):
            return self(*arguments, **env)
        out, err, before, folder = io.StringIO(), io.StringIO(), dict(os.environ), os.getcwd()
        try:
            os.environ.clear()
            os.environ.update(self.env | env)
            os.chdir(self.work)
            with redirect_stdout(out), redirect_stderr(err):
                status = main(arguments)
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
        return subprocess.CompletedProcess(arguments, status, out.getvalue().encode(), err.getvalue().encode())

    def ok(self, *arguments: str, **env: str) -> str:
        """Run one that must succeed; return its stdout."""
        done = self.look(*arguments, **env)
        assert done.returncode == 0, done
        return done.stdout.decode()

    def json(self, *arguments: str, status: int = 0, **env: str) -> Any:
        """Run one with ``--json`` and return its document."""
        done = self.look("--json", *arguments, **env)
        assert done.returncode == status, done
        return json.loads(done.stdout)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start one; it is killed with the test."""
        usual: dict[str, Any] = {
            "cwd": self.work,
            "env": self.env,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            # A test run in the background of a script ignores SIGINT, and so would what it starts.
            "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        }
        process = subprocess.Popen([*self.words, *arguments], **{**usual, **options})
        self.started.append(process)
        return process

    def leases(self) -> list[dict[str, Any]]:
        """Read the rows of all leases; straight from the file, because a process takes its time."""
        if not (self.state / "sojourn.db").exists():
            return []
        with closing(sqlite3.connect(self.state / "sojourn.db")) as connection:
            connection.row_factory = sqlite3.Row
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'leases'").fetchall():
                return []
            return [dict(row) for row in connection.execute("SELECT * FROM leases ORDER BY created_at, id")]

    def only_lease(self) -> dict[str, Any]:
        (lease,) = self.leases()
        return lease

    def active(self) -> dict[str, Any]:
        """Wait for one active lease and return it."""
        return eventually(lambda: [lease for lease in self.leases() if lease["status"] == "active"])[0]

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Look into the database, or change it, behind sojourn's back."""
        with closing(sqlite3.connect(self.state / "sojourn.db")) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def places(self) -> list[str]:
        """List what the local driver has left."""
        root = self.state / "local"
        return sorted(path.name for path in root.iterdir()) if root.exists() else []

    def processes(self) -> list[int]:
        return processes(self.marker)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    stream.close()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line of this test."""
    made = Cli(tmp_path)
    yield made
    made.close()
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := made.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes were left: {left}"


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], Any]:
    """`eventually`, for the tests."""
    return eventually


PLUGIN = '''
import attrs
from sojourn import Unavailable, hookimpl
from sojourn_local import LocalDriver

class FlakyDriver(LocalDriver):
    """Commands run here; giving back fails while the file FLAKY says so."""

    @hookimpl
    def driver_info(self):
        return attrs.evolve(super().driver_info(), name="flaky")

    @hookimpl
    def release(self, request):
        import os
        if os.path.exists(os.environ.get("FLAKY", "/nonexistent")):
            raise Unavailable("the provider is down \\x1b]0;pwned\\x07 \\u202e")
        return super().release(request)
'''


@pytest.fixture
def flaky(cli: Cli, tmp_path: Path) -> Path:
    """Install a driver that cannot give back while the returned file exists, and a broken one; add their environments."""
    site = tmp_path / "site"
    info = site / "someone_elses-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "flaky_driver.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someone-elses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sojourn.drivers]\nflaky = flaky_driver:FlakyDriver\nbroken = no_such_module:Driver\n"
    )
    switch = tmp_path / "down"
    path = ":".join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    cli.env |= {"PYTHONPATH": path, "FLAKY": str(switch)}
    cli.ok("env", "add", "flaky", "--driver", "flaky")
    return switch
