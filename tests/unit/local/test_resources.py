"""The directory of a resource: made once, marked, fenced, listed, removed whatever is in it, and never anybody else's."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from local_driving import IO, Place, eventually, pids_marked

from sojourn import (
    Conflict,
    ConnectionRequest,
    Disposition,
    Gone,
    InvalidArgument,
    InvalidConfig,
    InventoryRequest,
    LocalTarget,
    PermissionDenied,
    ProbeRequest,
    Refused,
    ResourceExhausted,
    ResourceState,
    TargetRequest,
    Unsupported,
)
from sojourn_local import LocalConfig, LocalDriver


def inventory(place: Place, installation: str | None = None) -> list[str]:
    common = place.common(installation_id=installation or place.installation)
    for name in ("resource_id", "lease_id", "epoch", "handle"):
        del common[name]
    return [item.resource_id for item in place.driver.inventory(InventoryRequest(**common))]


def probe(config: LocalConfig, place: Place) -> Any:
    common = place.common(config=config)
    for name in ("resource_id", "lease_id", "epoch", "handle"):
        del common[name]
    return place.driver.probe(ProbeRequest(**common))


def snapshot(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_ino) for path in root.rglob("*"))


# -- acquire ----------------------------------------------------------------------------------------------------------


def test_acquire_is_idempotent_and_another_spec_is_a_conflict(place: Place) -> None:
    before = snapshot(place.root)
    results = [place.acquire() for _ in range(10)]
    assert snapshot(place.root) == before
    assert len({str(result) for result in results}) == 1
    assert results[0].remote_cwd == str(place.directory / "workspace")
    assert place.acquire(transfer="in_place").remote_cwd is None
    assert place.directory.stat().st_mode & 0o777 == 0o700
    with pytest.raises(Conflict, match="another spec"):
        place.acquire(spec="spec-2")


def test_eight_threads_and_eight_processes_acquire_one_resource(tmp_path: Path) -> None:
    place = Place(tmp_path / "root", "crowd")
    barrier = threading.Barrier(8)

    def one(_: int) -> str:
        barrier.wait()
        return str(Place(place.root, "crowd").acquire())

    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from local_driving import Place
sys.stdin.read(1)
print(Place(Path({str(place.root)!r}), "crowd").acquire())
"""
    others = [
        subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, cwd=Path(__file__).parent)
        for _ in range(8)
    ]
    with ThreadPoolExecutor(8) as pool:
        threads = pool.map(one, range(8))
        printed = {other.communicate(b"x")[0].decode().strip() for other in others}
        assert printed == set(threads)
    assert os.listdir(place.root) == ["crowd"]
    place.release()


def test_another_installations_resource_is_never_touched(place: Place) -> None:
    stranger = Place(place.root, installation="inst-2")
    before = snapshot(place.root)
    for attempt in (stranger.acquire, stranger.release, lambda: stranger.run("touch", "x"), stranger.realize):
        with pytest.raises(Conflict):
            attempt()
    assert snapshot(place.root) == before
    assert inventory(stranger) == []
    assert inventory(place) == ["res-1"]


def test_a_directory_without_a_marker_is_never_touched(tmp_path: Path) -> None:
    place = Place(tmp_path / "root", "mine")
    theirs = place.directory
    theirs.mkdir(parents=True)
    (theirs / "precious").write_text("x")
    for attempt in (place.acquire, place.release):
        with pytest.raises(Conflict):
            attempt()
    assert (theirs / "precious").read_text() == "x"
    assert inventory(place) == []


@pytest.mark.parametrize("resource_id", ["", "..", "../x", "a/b", "-a", "A", "a" * 64, "a\n", ".new-x"])
def test_a_resource_id_is_never_a_path(tmp_path: Path, resource_id: str) -> None:
    place = Place(tmp_path / "root", resource_id)
    for attempt in (place.acquire, place.release):
        with pytest.raises(InvalidArgument, match="resource id"):
            attempt()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, ResourceExhausted), (errno.EDQUOT, ResourceExhausted), (errno.EROFS, PermissionDenied)],
)
def test_a_full_or_read_only_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    place = Place(tmp_path / "root")
    real = os.open

    def failing(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if "marker" in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(expected) as caught:
            place.acquire()
    assert isinstance(caught.value.__cause__, OSError)
    assert os.listdir(place.root) == []


def test_an_unsafe_root_is_refused(tmp_path: Path) -> None:
    open_root, link, file = tmp_path / "open", tmp_path / "link", tmp_path / "file"
    open_root.mkdir()
    open_root.chmod(0o777)
    link.symlink_to(tmp_path)
    file.touch()
    for root, reason in ((open_root, "writable by everyone"), (link, "symbolic link"), (file, "not a directory")):
        place = Place(root)
        with pytest.raises(InvalidConfig, match=reason):
            place.acquire()
        report = probe(place.config, place)
        assert not report.ok
        assert reason in report.diagnostics[0].message
    open_root.chmod(0o1777)
    Place(open_root).acquire()
    Place(open_root).release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(InvalidConfig, match="another user"):
        Place(root).acquire()


def test_other_systems_are_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "root")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Unsupported, match="Linux"):
        place.acquire()
    assert not probe(place.config, place).ok
    assert not place.root.exists()


# -- epochs -----------------------------------------------------------------------------------------------------------


def test_a_newer_epoch_ends_the_older_holders_commands_and_refuses_it(place: Place) -> None:
    newer = Place(place.root, release_grace_seconds=0.3)
    newer.epoch = 2

    async def scenario() -> None:
        task = asyncio.create_task(place.execute(IO(), "sleep", "60"))
        await eventually(lambda: pids_marked(f"SOJOURN_RESOURCE_DIR={place.directory}"))
        await asyncio.to_thread(newer.acquire)
        assert (await task).kill_confirmed
        for attempt in (place.acquire, place.realize, place.release):
            with pytest.raises(Refused, match="epoch 1"):
                attempt()
        with pytest.raises(Refused):
            await place.execute(IO(), "true")
        assert (await newer.execute(IO(), "true")).exit_code == 0

    asyncio.run(scenario())
    marker = json.loads((place.directory / "marker.json").read_text())
    assert (marker["created_epoch"], marker["epoch"]) == (1, 2)
    newer.release()


# -- release ----------------------------------------------------------------------------------------------------------


def test_release_twice_and_of_nothing_is_gone(tmp_path: Path) -> None:
    place = Place(tmp_path / "root")
    assert place.release().state is ResourceState.GONE
    place.acquire()
    assert [place.release().state for _ in range(3)] == [ResourceState.GONE] * 3
    assert os.listdir(place.root) == []


@pytest.mark.parametrize("disposition", [Disposition.KEEP, Disposition.STOP])
def test_keep_and_stop_end_processes_and_keep_the_directory(place: Place, disposition: Disposition) -> None:
    place.run("sh", "-c", "echo kept > file; sleep 60 &")
    receipt = place.release(disposition)
    assert receipt.state is ResourceState.STOPPED
    assert pids_marked(f"SOJOURN_RESOURCE_DIR={place.directory}") == []
    assert (place.directory / "workspace" / "file").read_text() == "kept\n"
    assert inventory(place) == ["res-1"]


def test_destroy_removes_whatever_a_command_left_and_nothing_else(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    outside.chmod(0o755)
    script = f"""
    ln -s {outside} link; ln -s /nonexistent dangling; mkfifo fifo; touch -- '-rf' 'a
b' "$(printf '\\377')"; mkdir -p closed/inner; touch closed/inner/file; chmod 000 closed/inner; chmod 000 closed
    i=0; d=.; while [ $i -lt 40 ]; do d=$d/dddddddddddddddddddd; i=$((i+1)); done; mkdir -p $d
    """
    assert place.run("bash", "-c", script)[0].exit_code == 0
    deep = "import os\nfor _ in range(3000):\n    os.mkdir('deep')\n    os.chdir('deep')\n"
    assert place.run(sys.executable, "-c", deep)[0].exit_code == 0
    try:
        assert place.release().state is ResourceState.GONE
        assert os.listdir(place.root) == []
    finally:
        # pytest's own clean-up cannot go that deep.
        subprocess.run(["rm", "-rf", str(place.root)], check=True)
        place.root.mkdir()
    assert (outside / "precious").read_text() == "x"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_workspace_in_place_is_never_removed(place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    cwd = place.realize(transfer="in_place", local_path=str(tree), clean=True)
    assert cwd == str(tree)
    place.run("sh", "-c", "echo y > made", cwd=cwd)
    place.release()
    assert sorted(os.listdir(tree)) == ["file", "made"]


def test_left_overs_of_a_crashed_acquire_are_removed_by_release(tmp_path: Path) -> None:
    place = Place(tmp_path / "root")
    (place.root / ".new-res-1.abc" / "tmp").mkdir(parents=True)
    (place.root / ".new-res-10.abc").mkdir()
    (place.root / "res-1").mkdir()
    assert place.release().state is ResourceState.GONE
    assert os.listdir(place.root) == [".new-res-10.abc"] or sorted(os.listdir(place.root)) == [
        ".new-res-10.abc",
        "res-1",
    ]
    assert inventory(place) == []


def test_a_resource_that_vanished_is_gone(place: Place) -> None:
    place.run("sh", "-c", "sleep 60 &")
    subprocess.run(["rm", "-rf", str(place.directory)], check=True)
    with pytest.raises(Gone):
        place.run("true")
    assert place.release().state is ResourceState.GONE
    assert pids_marked(f"SOJOURN_RESOURCE_DIR={place.directory}") == []


# -- realize and the rest -----------------------------------------------------------------------------------------------


def test_realize_gives_the_same_root_and_empties_it_only_when_asked(place: Place) -> None:
    cwd = place.realize()
    assert cwd == place.realize() == str(place.directory / "workspace")
    (Path(cwd) / "file").write_text("x")
    place.realize()
    assert os.listdir(cwd) == ["file"]
    place.realize(clean=True)
    assert os.listdir(cwd) == []


def test_realize_refuses_what_is_no_workspace(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("/", str(Path.home()), f"{tmp_path}/none", f"{tmp_path}/file", f"{tmp_path}/loop", "relative"):
        with pytest.raises(InvalidArgument) as caught:
            place.realize(transfer="in_place", local_path=path)
        assert repr(path) in str(caught.value)
    unsafe = Place(place.root, allow_unsafe_root=True)
    assert unsafe.realize(transfer="in_place", local_path="/") == "/"
    assert place.realize(transfer="in_place") == str(place.directory / "workspace")


def test_probe_creates_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path / "a" / "b")
    assert probe(place.config, place).ok
    assert os.listdir(tmp_path) == []


def test_target_and_connection(place: Place) -> None:
    assert place.driver.target(TargetRequest(**place.common(cwd="/x"))) == LocalTarget(cwd="/x")
    info = place.driver.connection(ConnectionRequest(**place.common(cwd=str(place.directory))))
    done = subprocess.run(info.command, input=b"pwd\n", capture_output=True, check=True, env={"SHELL": "/bin/sh"})
    assert done.stdout.decode().strip() == str(place.directory)


def test_close_ends_what_runs_and_the_driver_can_be_used_again(place: Place) -> None:
    place.run("sh", "-c", "sleep 60 &")
    place.driver.close()
    place.driver.close()
    assert pids_marked(f"SOJOURN_RESOURCE_DIR={place.directory}") == []
    assert place.run("true")[0].exit_code == 0


def test_config_is_checked_without_repeating_what_may_be_secret() -> None:
    for changes in (
        {"root": "relative"},
        {"pass_env": ("TOKEN=hunter2",)},
        {"path": ""},
        {"release_grace_seconds": -1.0},
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reasons differ, what matters is below
            LocalConfig(**changes)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
    assert LocalConfig().root_path().name == "local"


def test_importing_the_package_imports_neither_driver_nor_supervisor() -> None:
    program = (
        "import sys, sojourn_local; print([n for n in sys.modules if n.startswith(('sojourn_local.', 'asyncio'))])"
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=env)
    assert done.stdout == b"[]\n"
    assert LocalDriver().driver_info().name == "local"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_cannot_be_read_is_not_ours(tmp_path: Path) -> None:
    place = Place(tmp_path / "root", "closed")
    place.directory.mkdir(parents=True)
    place.directory.chmod(0o000)
    for attempt in (place.acquire, place.release):
        with pytest.raises((Conflict, PermissionDenied)):
            attempt()
    assert inventory(place) == []
    place.directory.chmod(0o700)
