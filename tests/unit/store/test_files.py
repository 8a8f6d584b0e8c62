"""The database file: who may read it, what is refused, and what each failure is called."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import SchemaMismatch, StoreCorrupt, StoreError, StoreUnavailable, StoreUnwritable
from sojourn.store import Store, environments, files
from sojourn.store.engine import locate


def open_and_close(path: Any) -> None:
    async def main() -> None:
        store = await Store.open(path)
        await store.close()

    asyncio.run(main())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_and_its_helpers_are_for_the_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        store = asyncio.run(Store.open(path))
        store.run_here(environments.ensure_local, "t")
        names = {found.name: mode(found) for found in path.parent.iterdir()}
        asyncio.run(store.close())
    finally:
        os.umask(before)
    assert names == {"sojourn.db": 0o600, "sojourn.db-wal": 0o600, "sojourn.db-shm": 0o600}
    assert mode(path.parent) == 0o700


def test_where_the_store_is_comes_from_the_argument_the_environment_or_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("SOJOURN_STORE", raising=False)
    assert locate(None).path == tmp_path / "sojourn" / "sojourn.db"
    monkeypatch.setenv("SOJOURN_STORE", str(tmp_path / "other.db"))
    assert locate(None).path == tmp_path / "other.db"
    assert locate(f"sqlite:///{tmp_path}/a b?.db".replace("?", "")).path == tmp_path / "a b.db"
    assert locate(tmp_path / "100%?.db").path == tmp_path / "100%?.db"
    monkeypatch.chdir(tmp_path)
    assert locate("x.db").path == tmp_path / "x.db"


def test_a_password_is_never_shown() -> None:
    location = locate("postgresql://me:hunter2@host/db?password=hunter2&sslmode=require")
    assert location.url.drivername == "postgresql+psycopg"
    for text in (location.shown, location.safe_url, repr(location)):
        assert "hunter2" not in text
    with pytest.raises(StoreError) as caught:
        locate("postgresql://me:hunter2@host:port/db")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///a.db?uri=true", "mysql://h/d", "sqlite+aiosqlite:///a"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"^store (sqlite|mysql|sqlite\+aiosqlite): "):
        locate(url)


def test_a_directory_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnwritable, match="is a directory"):
        open_and_close(tmp_path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    for target in (tmp_path / "real.db", tmp_path / "nowhere.db"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(StoreUnwritable, match="symbolic link"):
            open_and_close(link)
        assert not target.exists()


def test_a_directory_that_everybody_may_write_is_refused_unless_sticky(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(StoreUnwritable, match="chmod o-w"):
        open_and_close(shared / "s.db")
    assert list(shared.iterdir()) == []
    shared.chmod(0o1777)
    open_and_close(shared / "s.db")


def test_another_users_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_and_close(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StoreUnwritable, match="another user"):
        open_and_close(path)


def test_an_existing_file_is_not_opened_by_us_for_that_would_drop_sqlites_locks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_and_close(path)
    real, opened = os.open, []

    def spy(name: Any, *args: Any, **kwargs: Any) -> int:
        descriptor = real(name, *args, **kwargs)
        opened.append(name)
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    files.prepare(path)
    assert opened == []


@pytest.mark.parametrize(
    "content", [b"I am a text file, and long enough to have a header of a hundred bytes. " * 20, b"short"]
)
def test_a_text_file_is_called_no_database_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="is not a database") as caught:
        open_and_close(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_damaged_database_is_called_damaged(path: Path) -> None:
    open_and_close(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="damaged"):
        open_and_close(path)


def test_a_foreign_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(SchemaMismatch, match="not sojourn's"):
        open_and_close(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_removed_or_replaced_file_stops_the_store(path: Path, store: Store) -> None:
    copy = path.with_name("copy.db")
    store.run_here(environments.ensure_local, "t")
    shutil.copy(path, copy)
    path.rename(path.with_name("away.db"))
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        store.run_here(environments.ensure_local, "t")
    copy.rename(path)
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        asyncio.run(store.read(environments.list_all, "t"))


OPEN = """
import asyncio, os, sys, tempfile
from sojourn.store import Store
async def main(path):
    store = await Store.open(path)
    await store.close()
with tempfile.TemporaryDirectory() as folder:
    # Everything is imported before the rights to read it are given up.
    asyncio.run(main(folder + "/s.db"))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(main(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def open_unprivileged(path: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", OPEN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that an unprivileged process can reach and own."""
    import tempfile

    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_file_or_directory_is_unwritable(open_folder: Path) -> None:
    file = open_folder / "s.db"
    assert open_unprivileged(file) == ""
    file.chmod(0o400)
    assert open_unprivileged(file).startswith("StoreUnwritable")
    file.unlink()
    open_folder.chmod(0o500)
    said = open_unprivileged(file)
    assert said.startswith("StoreUnwritable")
    assert str(file) in said


def test_a_read_only_file_system_is_unwritable(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        open_and_close(disk / "s.db")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreUnwritable) as caught:
            open_and_close(disk / "s.db")
        assert str(disk / "s.db") in str(caught.value)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(store: Store) -> None:
    for n in range(2000):
        store.run_here(environments.insert, tenant="t", name=f"n{n}", driver="d", config={"x": "y" * 2000})


def test_a_full_disk_is_unwritable_and_what_was_committed_stays(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        store = asyncio.run(Store.open(disk / "s.db"))
        with pytest.raises(StoreUnwritable, match="no space left"):
            fill(store)
        count = len(store.run_here(environments.list_all, "t"))
        assert count > 0
        asyncio.run(store.close())
        # Room again: everything that was said to be stored is there.
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        store = asyncio.run(Store.open(disk / "s.db"))
        assert len(store.run_here(environments.list_all, "t")) == count
        asyncio.run(store.close())


def test_a_file_size_limit_is_unwritable(path: Path) -> None:
    program = """
import asyncio, resource, sys
from sojourn.errors import StoreUnwritable
from sojourn.store import Store, environments
store = asyncio.run(Store.open(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for n in range(2000):
        store.run_here(environments.insert, tenant="t", name=f"n{n}", driver="d", config={"x": "y" * 2000})
except StoreUnwritable as error:
    print("unwritable", n > 0)
"""
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "unwritable True\n", done.stderr


def test_a_copied_database_is_not_in_place_until_adopted(path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        first = await Store.open(path)
        assert first.in_place
        await first.close()
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        second = await Store.open(copy)
        assert not second.in_place
        assert second.installation_id == first.installation_id
        fresh = await second.adopt(new_installation=True)
        assert fresh == second.installation_id != first.installation_id
        assert second.in_place
        await second.close()
        third = await Store.open(copy)
        assert third.in_place
        assert third.installation_id == fresh
        await third.close()
        again = await Store.open(path)
        assert again.in_place
        assert again.installation_id == first.installation_id
        await again.close()

    asyncio.run(main())


def test_a_moved_database_keeps_its_installation_when_adopted(path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        first = await Store.open(path)
        await first.close()
        path.rename(tmp_path / "moved.db")
        moved = await Store.open(tmp_path / "moved.db")
        assert not moved.in_place
        assert await moved.adopt(new_installation=False) == first.installation_id
        await moved.close()
        moved = await Store.open(tmp_path / "moved.db")
        assert moved.in_place
        await moved.close()

    asyncio.run(main())
