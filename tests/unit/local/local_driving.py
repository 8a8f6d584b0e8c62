"""What the tests of the local driver share: requests, a CommandIO double, and a look at the process table of their own."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path
from typing import Any

from sojourn import (
    AcquireRequest,
    Actor,
    CommandOutcome,
    Disposition,
    ExecuteRequest,
    RealizeRequest,
    ReleaseReceipt,
    ReleaseRequest,
    RunContext,
    StopReason,
)
from sojourn_local import LocalConfig, LocalDriver

_exec_ids = itertools.count()


class Stop:
    """A stop signal that a test sets."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason: StopReason | None = None

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> StopReason:
        await self._event.wait()
        assert self.reason is not None
        return self.reason

    def set(self, reason: StopReason = StopReason.CANCELLED) -> None:
        self.reason = reason
        self._event.set()


class IO:
    """Collects the output; make it inside a running loop."""

    def __init__(self, stdin: Any = None) -> None:
        self.stdin = stdin
        self.stop = Stop()
        self.collected = {"stdout": bytearray(), "stderr": bytearray()}

    @property
    def stdout(self) -> bytes:
        return bytes(self.collected["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self.collected["stderr"])

    async def write(self, stream: str, data: bytes) -> None:
        self.collected[stream] += data


class Place:
    """One resource under a root of its own, and the requests about it."""

    def __init__(self, root: Path, resource_id: str = "res-1", *, installation: str = "inst-1", **config: Any) -> None:
        self.root = root
        self.resource_id = resource_id
        self.installation = installation
        self.config = LocalConfig(root=str(root), **config)
        self.driver = LocalDriver()
        self.directory = root / resource_id
        self.epoch = 1

    def common(self, **changes: Any) -> dict[str, Any]:
        return {
            "installation_id": self.installation,
            "environment_id": "env-1",
            "config": self.config,
            "context": RunContext(tenant="t", run_id="r", agent_id=None),
            "actor": Actor(type="system"),
            "timeout_seconds": 30.0,
            "resource_id": self.resource_id,
            "lease_id": "lease-1",
            "epoch": self.epoch,
            "handle": None,
            **changes,
        }

    def acquire(self, *, spec: str = "spec-1", transfer: str = "copy", **changes: Any) -> Any:
        return self.driver.acquire(AcquireRequest(**self.common(spec=spec, transfer=transfer, **changes)))

    def realize(self, *, transfer: str = "copy", local_path: str | None = None, clean: bool = False) -> str:
        request = RealizeRequest(**self.common(transfer=transfer, local_path=local_path, remote_path=None, clean=clean))
        cwd = self.driver.realize(request).cwd
        assert cwd is not None
        return cwd

    def release(self, disposition: Disposition = Disposition.DESTROY, **changes: Any) -> ReleaseReceipt:
        return self.driver.release(ReleaseRequest(**self.common(disposition=disposition, **changes)))

    def request(self, *argv: str, **changes: Any) -> ExecuteRequest:
        exec_id = changes.pop("exec_id", f"exec-{next(_exec_ids)}")
        return ExecuteRequest(**self.common(argv=argv, exec_id=exec_id, **changes))

    async def execute(self, io: IO, *argv: str, **changes: Any) -> CommandOutcome:
        return await self.driver.execute(self.request(*argv, **changes), io)

    def run(self, *argv: str, **changes: Any) -> tuple[CommandOutcome, IO]:
        """Run one command in a loop of its own."""

        async def one() -> tuple[CommandOutcome, IO]:
            io = IO()
            return await self.execute(io, *argv, **changes), io

        return asyncio.run(one())


def pids_marked(text: str) -> list[int]:
    """Return the living processes whose environment holds ``text``."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and name != str(os.getpid()):
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if text.encode() in environ and state not in "ZX":
                found.append(int(name))
    return found


def supervision_pids(directory: Path) -> list[int]:
    """Return the supervisors and the monitors of the resources at or under ``directory``, the supervisors first."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                parent = monitor_of(int(name))
            except OSError:
                continue
            if (
                len(words) > 4
                and words[3].endswith(b"launch.py")
                and (words[4] + b"/").startswith(f"{directory}/".encode())
            ):
                parents[int(name)] = parent
    return sorted(parents, key=lambda pid: parents[pid] in parents)


def monitor_of(pid: int) -> int:
    """Return a process's parent; for a command's main process that is its monitor."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


async def eventually(check: Any, seconds: float = 5.0) -> Any:
    """Wait until ``check()`` gives something true; give that."""
    until = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < until, f"did not happen within {seconds} s: {check}"
        await asyncio.sleep(0.01)
    return value
