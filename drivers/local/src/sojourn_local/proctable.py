"""Reads the process table from /proc and signals processes without ever hitting a reused pid.

Standard library only, and little of it: the supervisor imports this module.
"""

from __future__ import annotations

import os
import signal

__all__ = ["Process", "boot_id", "descendants", "process_table", "read_process", "send_signal"]

_STAT_BYTES = 4096


class Process:
    """One process as the table showed it; ``start_ticks`` tells it from a later one with the same pid."""

    __slots__ = ("parent_pid", "pid", "start_ticks", "state")

    def __init__(self, pid: int, parent_pid: int, start_ticks: int, state: str) -> None:
        self.pid = pid
        self.parent_pid = parent_pid
        self.start_ticks = start_ticks
        self.state = state

    @property
    def ended(self) -> bool:
        """Whether it only waits to be reaped."""
        return self.state in ("Z", "X")


def boot_id() -> str:
    """Return the identity of this boot of the machine; pids and start ticks mean something only within one."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def read_process(pid: int) -> Process | None:
    """Return what the table says of ``pid`` now, or None when there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(descriptor, _STAT_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # The command name stands in brackets and may hold spaces and brackets itself.
    fields = line[line.rindex(b")") + 2 :].split(None, 20)
    return Process(pid, int(fields[1]), int(fields[19]), fields[0].decode("ascii"))


def process_table() -> dict[int, Process]:
    """Return all processes by pid, those that wait to be reaped included."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def descendants(table: dict[int, Process], root_pid: int, leave_out: frozenset[int] = frozenset()) -> list[Process]:
    """Return the processes below ``root_pid``, nearest first, without the subtrees of the pids in ``leave_out``."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent_pid, []).append(process)
    found: list[Process] = []
    below = [root_pid]
    while below:
        for process in children.pop(below.pop(), ()):
            if process.pid not in leave_out:
                found.append(process)
                below.append(process.pid)
    return found


def send_signal(process: Process, number: int) -> bool:
    """Send a signal to that very process; say whether it got it.

    It did not when it has ended, or when it runs under credentials that we may not signal (a setuid program).
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        return _send_without_pidfd(process, number)
    try:
        # From here on the descriptor names one process; the start time says whether it is the one that was meant.
        if not _is_still(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def _is_still(process: Process) -> bool:
    now = read_process(process.pid)
    return now is not None and now.start_ticks == process.start_ticks


def _send_without_pidfd(process: Process, number: int) -> bool:
    # Kernels before 5.3, or a filter that refuses the call: the check leaves a window of microseconds.
    if not _is_still(process):
        return False
    try:
        os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
