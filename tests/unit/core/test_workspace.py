"""Copying a tree, and git worktrees: what travels, what is refused, and that nothing of the run's work is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from sojourn import wire
from sojourn.errors import WorkspaceError
from sojourn.store import Store, environments
from sojourn.workspace import worktrees
from sojourn.workspace.copying import copy_tree, plan_copy
from sojourn.workspace.worktrees import WorktreeNotRemoved, make_worktree, plan_worktree, remove_recorded_worktree


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "protocol.file.allow=always")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def repository(source: Path) -> Path:
    git(source, "init", "--quiet", "--initial-branch", "main")
    (source / "tracked").write_text("one")
    (source / "sub").mkdir()
    (source / "sub" / "inner").write_text("two")
    (source / ".gitignore").write_text("ignored*\n")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "first")
    return source


async def copied(source: Path, target: Path) -> list[str]:
    target.mkdir()
    await copy_tree(await plan_copy(source), target)
    return sorted(str(path.relative_to(target)) for path in target.rglob("*"))


# -- outside of git ---------------------------------------------------------------------------------------------------


async def test_files_links_modes_and_times_travel(source: Path, tmp_path: Path) -> None:
    (source / "run.sh").write_text("#!/bin/sh")
    (source / "run.sh").chmod(0o4750)
    os.utime(source / "run.sh", ns=(10**18, 10**18 + 5))
    (source / "empty").mkdir()
    (source / "closed").mkdir()
    (source / "closed" / "file").write_text("x")
    (source / "closed").chmod(0o550)
    (source / "link").symlink_to("run.sh")
    (source / "dangling").symlink_to("/no/such/target")
    (source / "out").symlink_to("/etc")
    (source / "big").write_bytes(os.urandom(3 * 1024 * 1024 + 7))
    target = tmp_path / "target"
    names = await copied(source, target)
    assert names == ["big", "closed", "closed/file", "dangling", "empty", "link", "out", "run.sh"]
    status = (target / "run.sh").stat()
    assert stat.S_IMODE(status.st_mode) == 0o750, "setuid does not travel"
    assert status.st_mtime_ns == 10**18 + 5
    assert stat.S_IMODE((target / "closed").stat().st_mode) == 0o550
    assert [os.readlink(target / name) for name in ("link", "dangling", "out")] == ["run.sh", "/no/such/target", "/etc"]
    assert (target / "big").read_bytes() == (source / "big").read_bytes()


async def test_names_that_are_not_utf8_travel(source: Path, tmp_path: Path) -> None:
    folder = os.fsencode(source)
    for name in (b"\xff\xfe", b"new\nline", b"-dash", b" space "):
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(name)
    await copied(source, tmp_path / "target")
    assert sorted(os.listdir(os.fsencode(tmp_path / "target"))) == sorted(
        [b"\xff\xfe", b"new\nline", b"-dash", b" space "]
    )


async def test_what_can_be_made_again_stays_behind(source: Path, tmp_path: Path) -> None:
    for name in ("node_modules", ".venv", "__pycache__", ".hg", "kept"):
        (source / name).mkdir()
        (source / name / "file").write_text("x")
    assert await copied(source, tmp_path / "target") == ["kept", "kept/file"]


@pytest.mark.parametrize("in_git", [False, True])
async def test_a_pipe_is_refused_before_anything_is_copied(source: Path, tmp_path: Path, in_git: bool) -> None:
    (source / "a").write_text("x")
    (source / "sub").mkdir()
    os.mkfifo(source / "sub" / "pipe")
    if in_git:
        git(source, "init", "--quiet")
        # git itself does not list a pipe; one inside of a repository of its own is walked.
        git(source / "sub", "init", "--quiet")
    with pytest.raises(WorkspaceError, match="pipe, socket or device") as failure:
        await asyncio.wait_for(plan_copy(source), 10)
    assert failure.value.path == str(source / "sub" / "pipe")


@pytest.mark.parametrize(("name", "reason"), [("nothing", "does not exist"), ("file", "is not a folder")])
async def test_a_source_that_is_no_folder_is_refused(source: Path, name: str, reason: str) -> None:
    (source / "file").write_text("x")
    with pytest.raises(WorkspaceError, match=reason):
        await plan_copy(source / name)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_is_refused_by_name(kind: str) -> None:
    """By a process that is not root, for root reads everything."""
    program = f"""
        import asyncio, concurrent.futures.thread, os, pathlib, tempfile
        from sojourn.errors import WorkspaceError
        from sojourn.workspace.copying import plan_copy
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "source")
            source.mkdir(mode=0o755)
            os.chmod(folder, 0o755)
            os.chdir("/")
            secret = source / "secret"
            secret.mkdir() if {kind == "folder"} else secret.write_text("x")
            secret.chmod(0)
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 0)
            try:
                asyncio.run(plan_copy(source))
            except WorkspaceError as error:
                print(error.path == str(secret), error.reason)
            if os.getresuid()[2] == 0:
                os.setresuid(0, 0, 0)
            secret.chmod(0o700)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True cannot be read: Permission denied\n", done.stderr


# -- a tree that changes between plan and copy ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "folder", "root of the target"])
async def test_a_link_swapped_in_is_never_followed(source: Path, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (source / "sub").mkdir()
    (source / "sub" / "file").write_text("harmless")
    target = tmp_path / "target"
    target.mkdir()
    plan = await plan_copy(source)
    if what == "file":
        (source / "sub" / "file").unlink()
        (source / "sub" / "file").symlink_to(outside / "file")
        await copy_tree(plan, target)
        assert (target / "sub" / "file").is_symlink(), "a link is copied as a link"
        return
    if what == "folder":
        shutil.rmtree(source / "sub")
        (source / "sub").symlink_to(outside)
    else:
        target.rmdir()
        target.symlink_to(outside)
    with pytest.raises((WorkspaceError, OSError)):
        await copy_tree(plan, target)
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("file", "secret")]
    if what == "folder":
        assert (target / "sub").is_symlink(), "copied as the link that it is now, and not entered"


async def test_a_link_swapped_into_the_target_is_not_written_through(source: Path, tmp_path: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "file").write_text("x")
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (target / "sub").symlink_to(outside)
    with pytest.raises(WorkspaceError, match="could not be copied"):
        await copy_tree(await plan_copy(source), target)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_link_swapped_in_after_its_folder_was_made_is_not_entered(
    source: Path, tmp_path: Path, side: str
) -> None:
    """Between two entries of one folder: neither read nor written through it."""
    outside, target = tmp_path / "outside", tmp_path / "target"
    for folder in (outside, target, source / "sub", target / "sub"):
        folder.mkdir()
    (source / "sub" / "file").write_text("harmless")
    plan = attrs.evolve(await plan_copy(source), entries=(b"sub/file",))
    swapped = (source if side == "source" else target) / "sub"
    shutil.rmtree(swapped)
    swapped.symlink_to(outside)
    if side == "source":
        (outside / "file").write_text("secret")
    with pytest.raises(WorkspaceError, match="could not be copied"):
        await copy_tree(plan, target)
    assert list((outside if side == "target" else target / "sub").iterdir()) == []


@pytest.mark.parametrize("becomes", ["pipe", "nothing"])
async def test_a_file_that_became_something_else_is_an_error_by_name(
    source: Path, tmp_path: Path, becomes: str
) -> None:
    (source / "file").write_text("x")
    plan = await plan_copy(source)
    (source / "file").unlink()
    if becomes == "pipe":
        os.mkfifo(source / "file")
    (tmp_path / "target").mkdir()
    with pytest.raises(WorkspaceError, match="could not be copied") as failure:
        await asyncio.wait_for(copy_tree(plan, tmp_path / "target"), 10)
    assert failure.value.path == str(source / "file")


# -- what git selects -------------------------------------------------------------------------------------------------


async def test_git_selects_tracked_and_untracked_but_not_ignored_nor_deleted(repository: Path, tmp_path: Path) -> None:
    (repository / "untracked").write_text("x")
    (repository / "ignored.log").write_text("x")
    (repository / "ignored-but-added").write_text("x")
    git(repository, "add", "--force", "ignored-but-added")
    (repository / "tracked").unlink()
    names = await copied(repository, tmp_path / "target")
    assert names == [".gitignore", "ignored-but-added", "sub", "sub/inner", "untracked"]


async def test_a_subfolder_of_a_repository_is_the_root_of_what_travels(repository: Path, tmp_path: Path) -> None:
    (repository / "sub" / "ignored.log").write_text("x")
    (repository / "sub" / "new").write_text("x")
    assert await copied(repository / "sub", tmp_path / "target") == ["inner", "new"]


async def test_a_submodule_travels_with_its_files(repository: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "--quiet")
    (library / "code").write_text("x")
    git(library, "add", "code")
    git(library, "commit", "--quiet", "--message", "library")
    git(repository, "submodule", "--quiet", "add", str(library), "vendored")
    names = await copied(repository, tmp_path / "target")
    assert "vendored/code" in names
    assert not [name for name in names if ".git/" in name or name.endswith("/.git")]


async def test_a_locked_index_and_odd_environment_variables_do_not_change_the_answer(
    repository: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (repository / ".git" / "index.lock").touch()
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    assert "tracked" in await copied(repository, tmp_path / "target")


async def test_a_repository_without_a_commit_travels(source: Path, tmp_path: Path) -> None:
    git(source, "init", "--quiet")
    (source / "file").write_text("x")
    assert await copied(source, tmp_path / "target") == ["file"]


# -- worktrees --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: Any) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setattr(worktrees, "state_dir", lambda: folder)
    return folder


def recorded(worktree: Any) -> Any:
    """A lease as far as the removal looks at it."""
    context = SimpleNamespace(run_id="run-1")
    return SimpleNamespace(id="lease_1", context=context, metadata={worktrees.METADATA_KEY: wire.dump(worktree)})


def branches(repository: Path) -> list[str]:
    return git(repository, "branch", "--format", "%(refname:short)").split()


async def made(source: Path, branch: str | None = None) -> Any:
    worktree = await plan_worktree(source, "sj-1", branch)
    await make_worktree(worktree)
    return worktree


async def test_a_worktree_is_the_commit_on_a_branch_of_its_own(repository: Path) -> None:
    (repository / "tracked").write_text("uncommitted")
    worktree = await made(repository)
    assert (Path(worktree.workspace) / "tracked").read_text() == "one"
    assert branches(repository) == ["main", "sojourn/sj-1"]
    assert (repository / "tracked").read_text() == "uncommitted"


async def test_making_it_again_is_the_same_one(repository: Path) -> None:
    worktree = await made(repository)
    (Path(worktree.workspace) / "tracked").write_text("changed")
    await make_worktree(worktree)
    assert (Path(worktree.workspace) / "tracked").read_text() == "changed"


async def test_a_subfolder_is_the_workspace_in_the_worktree(repository: Path) -> None:
    worktree = await made(repository / "sub")
    assert worktree.folder == "sub"
    assert (Path(worktree.workspace) / "inner").read_text() == "two"


async def test_nothing_left_and_the_branch_goes_too(repository: Path, state: Path) -> None:
    worktree = await made(repository)
    await remove_recorded_worktree(recorded(worktree))
    assert branches(repository) == ["main"]
    assert not Path(worktree.path).exists()
    assert git(repository, "worktree", "list").count("\n") == 1
    await remove_recorded_worktree(recorded(worktree))


async def test_uncommitted_work_is_committed_on_the_branch_which_stays(repository: Path) -> None:
    worktree = await made(repository)
    root = Path(worktree.workspace)
    (root / "tracked").write_text("changed")
    (root / "new").write_text("new")
    (root / "sub" / "inner").unlink()
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    await remove_recorded_worktree(recorded(worktree))
    assert not root.exists()
    assert git(repository, "show", "sojourn/sj-1:tracked") == "changed"
    assert git(repository, "show", "sojourn/sj-1:new") == "new"
    assert "sub/inner" not in git(repository, "ls-tree", "-r", "--name-only", "sojourn/sj-1")
    assert "run-1" in git(repository, "log", "-1", "--format=%s", "sojourn/sj-1")
    assert branches(repository) == ["main", "sojourn/sj-1"]


async def test_commits_of_the_run_stay_on_the_branch(repository: Path) -> None:
    worktree = await made(repository)
    (Path(worktree.workspace) / "new").write_text("new")
    git(Path(worktree.workspace), "add", "new")
    git(Path(worktree.workspace), "commit", "--quiet", "--message", "by the run")
    await remove_recorded_worktree(recorded(worktree))
    assert git(repository, "log", "-1", "--format=%s", "sojourn/sj-1").strip() == "by the run"


async def test_a_branch_that_was_named_is_used_and_never_deleted(repository: Path) -> None:
    git(repository, "branch", "feature")
    worktree = await made(repository, "feature")
    assert git(Path(worktree.workspace), "branch", "--show-current").strip() == "feature"
    await remove_recorded_worktree(recorded(worktree))
    assert branches(repository) == ["feature", "main"]


@pytest.mark.parametrize("branch", ["main", "nowhere", "--force", "a..b"])
async def test_a_branch_that_cannot_be_used_is_refused(repository: Path, branch: str) -> None:
    """Checked out already, not there, or not a name."""
    with pytest.raises(WorkspaceError):
        await made(repository, branch)
    assert branches(repository) == ["main"]


async def test_a_folder_that_is_no_repository_or_has_no_commit_is_refused(source: Path) -> None:
    with pytest.raises(WorkspaceError, match="not in a git work tree; use mode copy or in_place"):
        await plan_worktree(source, "sj-1", None)
    git(source, "init", "--quiet")
    with pytest.raises(WorkspaceError, match="has no commit yet"):
        await plan_worktree(source, "sj-1", None)


async def test_a_folder_that_is_not_committed_is_refused_and_cleaned_up(repository: Path) -> None:
    (repository / "untracked").mkdir()
    (repository / "untracked" / "file").write_text("x")
    worktree = await plan_worktree(repository / "untracked", "sj-1", None)
    with pytest.raises(WorkspaceError, match="is not part of commit"):
        await make_worktree(worktree)
    await remove_recorded_worktree(recorded(worktree))
    assert branches(repository) == ["main"]


@pytest.mark.parametrize("crash", ["before anything", "after the folder", "after the branch", "in the middle, locked"])
async def test_a_crash_between_record_and_make_leaves_nothing(repository: Path, crash: str) -> None:
    worktree = await plan_worktree(repository, "sj-1", None)
    if crash != "before anything":
        Path(worktree.path).mkdir(parents=True)
    if crash == "after the branch":
        git(repository, "branch", worktree.branch, worktree.base)
    if crash == "in the middle, locked":
        await make_worktree(worktree)
        git(repository, "worktree", "lock", worktree.path)
    await remove_recorded_worktree(recorded(worktree))
    assert branches(repository) == ["main"]
    assert not Path(worktree.path).exists()
    assert git(repository, "worktree", "list").count("\n") == 1


async def test_a_repository_that_is_gone_loses_nothing(repository: Path) -> None:
    worktree = await made(repository)
    (Path(worktree.workspace) / "new").write_text("work")
    shutil.rmtree(repository)
    with pytest.raises(WorktreeNotRemoved, match="the repository is gone"):
        await remove_recorded_worktree(recorded(worktree))
    assert (Path(worktree.workspace) / "new").read_text() == "work"
    shutil.rmtree(worktree.path)
    await remove_recorded_worktree(recorded(worktree))


async def test_a_worktree_of_another_host_is_left_to_it(repository: Path) -> None:
    worktree = await made(repository)
    with pytest.raises(WorktreeNotRemoved, match="is on another host"):
        await remove_recorded_worktree(recorded(attrs.evolve(worktree, host_id="elsewhere")))
    assert Path(worktree.path).exists()


async def test_a_lease_without_a_worktree_needs_nothing() -> None:
    await remove_recorded_worktree(SimpleNamespace(metadata={}))  # type: ignore[arg-type]


async def test_the_file_of_an_open_store_is_neither_opened_nor_copied(source: Path, tmp_path: Path) -> None:
    """Closing any descriptor of a database drops the locks that this process holds on it."""
    (source / "file").write_text("x")
    store = await Store.open(source / "runs.db")
    try:
        await store.run(environments.ensure_local, "default")
        plan = await plan_copy(source, (), store.own_files())
    finally:
        await store.close()
    assert plan.entries == (b"file",)
