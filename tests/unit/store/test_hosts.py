"""A holder counts as dead only when it is proven."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import attrs
import pytest

from sojourn import hosts

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the proof is Linux's")


def a_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def as_holder(make_holder: Any, process: subprocess.Popen[bytes], **changes: Any) -> Any:
    found = hosts._state_and_start(str(process.pid))
    assert found
    return make_holder("h", **{"pid": process.pid, "process_started": found[1], **changes})


def test_this_process_is_known_in_every_part_and_alive(make_holder: Any) -> None:
    me = hosts.this_process()
    assert me == hosts.this_process()
    assert all(attrs.astuple(me))
    assert me.pid == os.getpid()
    assert not hosts.is_dead(make_holder("h"))


def test_a_running_process_is_alive_and_an_ended_one_dead(make_holder: Any) -> None:
    process = a_process()
    holder = as_holder(make_holder, process)
    assert not hosts.is_dead(holder)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
    assert hosts.is_dead(holder)
    process.wait()
    assert hosts.is_dead(holder)


def test_a_pid_that_another_process_got_is_dead(make_holder: Any) -> None:
    assert hosts.is_dead(make_holder("h", process_started="1"))


def test_an_earlier_boot_is_dead(make_holder: Any) -> None:
    assert hosts.is_dead(make_holder("h", boot_id="another"))


@pytest.mark.parametrize(
    "changes",
    [
        {"host_id": "another"},
        {"host_id": "another", "boot_id": "another"},
        {"pid_namespace": "1"},
        {"pid_namespace": ""},
        {"boot_id": ""},
        {"pid": 0},
        {"pid": -1},
    ],
)
def test_what_cannot_be_told_is_not_dead(make_holder: Any, changes: dict[str, Any]) -> None:
    process = a_process()
    process.kill()
    process.wait()
    assert not hosts.is_dead(make_holder("h", **{"pid": process.pid, **changes}))


def test_a_process_without_a_start_time_is_not_dead_while_its_pid_lives(make_holder: Any) -> None:
    assert not hosts.is_dead(make_holder("h", process_started=""))


def test_a_process_that_proc_hides_is_not_dead(make_holder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_state_and_start", lambda pid: None)
    assert not hosts.is_dead(make_holder("h", process_started="1"))


def test_a_name_with_parentheses_does_not_confuse_the_start_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = " ".join(["S", *map(str, range(4, 22)), "777", "0"])
    monkeypatch.setattr(hosts, "_read", lambda path: f"12 (a) Z ) (b) {fields}")
    assert hosts._state_and_start("12") == ("S", "777")


def test_ids_show_nothing_of_the_machine_id() -> None:
    raw = hosts._raw_machine_id()
    assert not raw or raw not in (hosts.this_process().host_id, hosts.machine_id())
