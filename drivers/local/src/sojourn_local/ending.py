"""Ends every process of a resource and proves it, from any process: also after the orchestrator that started them crashed.

The proof has two parts: every supervisor's state file can be locked (no supervisor and no monitor lives, and a monitor only
goes when its tree is gone), and no process carries the resource's directory in its environment (for the trees of a supervisor
and monitors that were killed together).
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from sojourn import Unavailable
from sojourn_local.baseenv import RESOURCE_DIRECTORY
from sojourn_local.monitor import PROOF_SECONDS
from sojourn_local.proctable import Process, boot_id, process_table, read_process, send_signal

__all__ = ["STATE_DIRECTORY", "end_all", "has_living_supervisor", "sweep_marked", "wait_unlocked"]

STATE_DIRECTORY = "supervisors"
_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.02
_ESCALATION_SECONDS = 1.0


def end_all(directory: Path, grace_seconds: float) -> None:
    """End every process of the resource at ``directory`` and return when they are proven gone.

    Args:
        directory: the resource's own directory; it need not exist.
        grace_seconds: what its supervisor was told to wait between TERM and KILL.

    Raises:
        Unavailable: some process could not be ended, or not be proven gone; its pid is named.
    """
    state_files = _state_files(directory)
    if state_files == []:
        # Nothing was started since the last proof: a state file stays until the proof is there.
        return
    left = [state_file for state_file in state_files or [] if not wait_unlocked(state_file, 0)]
    for state_file in left:
        _ask_to_end(state_file)
    left = _wait_for(left, grace_seconds + PROOF_SECONDS + 0.3)
    if left:
        _kill_supervision(directory)
        left = _wait_for(left, _ESCALATION_SECONDS)
    pids = sweep_marked(directory)
    if left or pids:
        named = ", ".join(str(pid) for pid in pids) or "unknown"
        raise Unavailable(f"processes of {directory} are not proven gone (pids: {named}); end them and release again")
    for state_file in state_files or []:
        state_file.unlink(missing_ok=True)


def _state_files(directory: Path) -> list[Path] | None:
    """Return one file per supervisor that lives or left no proof of its end; None when somebody removed their directory."""
    try:
        return [directory / STATE_DIRECTORY / name for name in os.listdir(directory / STATE_DIRECTORY)]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _wait_for(state_files: list[Path], seconds: float) -> list[Path]:
    until = time.monotonic() + seconds
    return [state_file for state_file in state_files if not wait_unlocked(state_file, until - time.monotonic())]


def has_living_supervisor(directory: Path) -> bool:
    """Say whether a supervisor or monitor of the resource lives; changes nothing."""
    return any(not wait_unlocked(state_file, 0) for state_file in _state_files(directory) or [])


def wait_unlocked(state_file: Path, seconds: float) -> bool:
    """Wait until nobody holds the lock of ``state_file``; say whether that came within ``seconds``."""
    try:
        descriptor = os.open(state_file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    until, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return True
    finally:
        os.close(descriptor)


def _ask_to_end(state_file: Path) -> None:
    process = _recorded(state_file)
    if process is not None:
        send_signal(process, signal.SIGTERM)
        send_signal(process, signal.SIGCONT)


def _recorded(state_file: Path) -> Process | None:
    """Return the supervisor that the file names, if it is that very process of this boot."""
    try:
        fields = state_file.read_text("ascii").split()
    except OSError:
        return None
    if len(fields) != 3 or fields[2] != boot_id():
        return None
    process = read_process(int(fields[0]))
    return process if process is not None and process.start_ticks == int(fields[1]) else None


def _kill_supervision(directory: Path) -> None:
    """Kill supervisor and monitors that did not answer: stopped by somebody, or stuck. Their trees are swept afterwards."""
    for process in process_table().values():
        if not process.ended and _supervises(process.pid, directory):
            send_signal(process, signal.SIGKILL)


def _supervises(pid: int, directory: Path) -> bool:
    words = _read(pid, "cmdline").split(b"\0")
    return len(words) > 4 and words[3].endswith(b"/launch.py") and words[4] == os.fsencode(directory)


def sweep_marked(directory: Path) -> list[int]:
    """Kill the processes whose environment names ``directory``; return the pids of those that are left after a while."""
    until = time.monotonic() + _ESCALATION_SECONDS
    while True:
        marked = _marked(directory)
        if not marked or time.monotonic() >= until:
            return [process.pid for process in marked]
        for process in marked:
            send_signal(process, signal.SIGKILL)
        time.sleep(_FIRST_PAUSE_SECONDS * 5)


def _marked(directory: Path) -> list[Process]:
    variable = b"\0" + os.fsencode(f"{RESOURCE_DIRECTORY}={directory}") + b"\0"

    def is_marked(pid: int) -> bool:
        return variable in b"\0" + _read(pid, "environ")

    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid != os.getpid() and is_marked(pid):
            process = read_process(pid)
            # Looked at again once it is known which process that is: the pid may have been reused in between.
            if process is not None and not process.ended and is_marked(pid):
                found.append(process)
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        # It has just ended, or is not ours to read.
        return b""
