"""Which host and process this is, and whether another one is proven to be gone.

Proof is all that counts here: what cannot be told is reported as alive, and the silent-holder time-out decides later.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from sojourn.records import Holder

__all__ = ["HostProcess", "is_dead", "machine_id", "this_process"]

_GONE_STATES = frozenset("ZXx")


@attrs.frozen(kw_only=True)
class HostProcess:
    """One process on one boot of one host. Empty text: this platform does not tell."""

    host_id: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_started: str


def this_process() -> HostProcess:
    """Return who we are. Not cached: a forked child is another process."""
    _, started = _state_and_start("self") or ("", "")
    return HostProcess(
        host_id=_host_id(),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        process_started=started,
    )


def machine_id() -> str:
    """Return a hash that names this machine's installation: of ``/etc/machine-id``, else of the host name."""
    return _hashed(_raw_machine_id() or platform.node())


def is_dead(holder: Holder) -> bool:
    """Say whether the holder's process is **proven** not to run any more.

    Args:
        holder: as it registered itself.

    Returns:
        True for an earlier boot of this host, and for a process of our own pid namespace that does not exist, is a zombie,
        or whose pid now belongs to a process that started at another time. False in every other case, doubt included.
    """
    me = this_process()
    if holder.host_id != me.host_id:
        return False
    if holder.boot_id and me.boot_id and holder.boot_id != me.boot_id:
        return True
    if holder.boot_id != me.boot_id or holder.pid_namespace != me.pid_namespace or not _namespace_is_known(me):
        return False
    return _process_is_gone(holder.pid, holder.process_started)


def _namespace_is_known(me: HostProcess) -> bool:
    # Only Linux has pid namespaces; there an unreadable one means that a pid proves nothing.
    return bool(me.pid_namespace) or not sys.platform.startswith("linux")


def _process_is_gone(pid: int, started: str) -> bool:
    if pid <= 0:
        return False
    # Asked before /proc is read: with hidepid a foreign process has no entry there and yet lives.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    found = _state_and_start(str(pid))
    if found is None:
        return False
    state, now_started = found
    return state in _GONE_STATES or bool(started and now_started != started)


def _state_and_start(pid: str) -> tuple[str, str] | None:
    stat = _read(f"/proc/{pid}/stat")
    # The command name, field 2, may hold spaces and parentheses; only the last parenthesis ends it.
    fields = stat.rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else None


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _host_id() -> str:
    # Cloned machines and containers of one image share a machine id. With the host name in it they differ, so that the
    # other boot id of a clone is not taken for proof that a live holder is dead.
    return _hashed(f"{_raw_machine_id()}\0{platform.node()}")


def _raw_machine_id() -> str:
    return _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")


def _hashed(text: str) -> str:
    # machine-id(5) asks not to show the id itself.
    return hashlib.sha256(f"sojourn\0{text}".encode()).hexdigest()[:32]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
