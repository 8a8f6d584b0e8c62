"""Ways to look at the world without the driver, so that a driver cannot vouch for itself."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["BackDoor", "HostBackDoor"]


class BackDoor:
    """What a driver's author can find out, or do, without the driver. Override what is possible; the rest is undeclared."""

    def resource_exists(self, resource_id: str) -> bool:
        """Whether the provider has the resource."""
        raise NotImplementedError

    def processes(self, mark: str) -> list[str]:
        """List the living processes whose environment or command line holds ``mark``, each as a line for people."""
        raise NotImplementedError

    def argv_of_all_processes(self) -> list[bytes]:
        """Return the command line of every process of the machines that take part."""
        raise NotImplementedError

    def destroy_resource(self, resource_id: str) -> None:
        """Make the resource vanish."""
        raise NotImplementedError

    def offers(self, what: str) -> bool:
        """Whether the method ``what`` is there."""
        return getattr(type(self), what) is not getattr(BackDoor, what)


class HostBackDoor(BackDoor):
    """Looks into this machine's ``/proc``; for drivers whose commands are processes of this machine."""

    def processes(self, mark: str) -> list[str]:
        """List the living processes of this machine that carry ``mark``, except this one."""
        wanted = os.fsencode(mark)
        found = []
        for entry in _processes():
            command = _read(entry, "cmdline")
            if wanted in command or wanted in _read(entry, "environ"):
                found.append(f"pid {entry.name}: {command.replace(bytes(1), b' ').decode('utf-8', 'replace')[:200]}")
        return found

    def argv_of_all_processes(self) -> list[bytes]:
        """Return the command line of every process of this machine, except this one's."""
        return [_read(entry, "cmdline") for entry in _processes()]


def _processes() -> list[Path]:
    own = str(os.getpid())
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and entry.name != own]


def _read(process: Path, name: str) -> bytes:
    try:
        return (process / name).read_bytes()
    except OSError:
        # It has just ended, or is not ours to read.
        return b""
