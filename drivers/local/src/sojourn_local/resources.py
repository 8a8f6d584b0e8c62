"""The directory of one resource: made in one step, marked with its owner, checked before every use.

<root>/<resource_id>/marker.json     who owns it, for which spec, and the current epoch
                    /workspace/      the workspace of transfer ``copy``
                    /tmp/            TMPDIR of its commands
                    /supervisors/    one locked file per living supervisor
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from sojourn import Conflict, Gone, InvalidArgument, InvalidConfig, Refused
from sojourn_local.ending import STATE_DIRECTORY
from sojourn_local.failures import translated
from sojourn_local.proctable import boot_id
from sojourn_local.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sojourn_local.config import LocalConfig

__all__ = ["Marker", "Resource", "check_root", "make_root", "resource_ids"]

_RESOURCE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MARKER = "marker.json"
_NEW = ".new-"


@attrs.frozen(kw_only=True)
class Marker:
    """What ``marker.json`` says."""

    installation: str
    resource_id: str
    created_epoch: int
    epoch: int
    spec: str
    created_at: float
    boot_id: str

    @classmethod
    def from_json(cls, text: bytes) -> Marker | None:
        """Read a marker; None when this is not one."""
        try:
            data: Any = json.loads(text)
            return cls(**{field.name: data[field.name] for field in attrs.fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def to_json(self) -> bytes:
        """Return the text of the file."""
        return json.dumps(attrs.asdict(self), indent=1).encode()


class Resource:
    """One resource's directory; cheap to make, touches nothing until asked.

    Args:
        root: where the resources live.
        resource_id: the core's name; checked here, so that it is never a path.
        installation: whose resource it has to be.
    """

    def __init__(self, root: Path, resource_id: str, installation: str) -> None:
        if not _RESOURCE_ID.fullmatch(resource_id):
            raise InvalidArgument("a resource id is 1 to 63 characters of [a-z0-9-] and begins with none of '-'")
        self.root = root
        self.resource_id = resource_id
        self.installation = installation
        self.directory = root / resource_id
        self.workspace = self.directory / "workspace"
        self._seen: tuple[tuple[int, int], Marker] | None = None

    def create(self, spec: str, epoch: int) -> None:
        """Make the directory if there is none; it appears under its name complete, marker included.

        Raises:
            Conflict: the name is taken by another installation, another spec, or something that is not ours.
        """
        if not self.exists():
            with translated(f"making {self.directory}"):
                self._build(spec, epoch)
        marker = self.marker()
        if marker.spec != spec:
            raise Conflict(f"resource {self.resource_id} exists with another spec")

    def _build(self, spec: str, epoch: int) -> None:
        draft = self.root / f"{_NEW}{self.resource_id}.{secrets.token_hex(6)}"
        marker = Marker(
            installation=self.installation,
            resource_id=self.resource_id,
            created_epoch=epoch,
            epoch=epoch,
            spec=spec,
            created_at=time.time(),
            boot_id=boot_id(),
        )
        try:
            draft.mkdir(0o700)
            for name in (STATE_DIRECTORY, "tmp"):
                (draft / name).mkdir(0o700)
            _write_atomically(draft, _MARKER, marker.to_json())
            # Onto a directory that is not empty this fails: another acquire was faster, and its directory is the one.
            draft.rename(self.directory)
        except OSError as error:
            remove_tree(self.root, draft.name)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise

    def exists(self) -> bool:
        """Whether something is there under the name; an empty directory is the rest of a removal and counts as nothing."""
        try:
            with os.scandir(self.directory) as entries:
                return next(entries, None) is not None
        except FileNotFoundError:
            return False
        except (NotADirectoryError, PermissionError):
            return True

    def marker(self) -> Marker:
        """Return the marker, read again only when the file was replaced.

        Raises:
            Gone: there is no such resource.
            Conflict: it is another installation's, or not ours to touch at all.
        """
        try:
            facts = os.stat(self.directory / _MARKER, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.exists():
                raise Conflict(f"{self.directory} holds no marker of sojourn; it is left alone") from error
            raise Gone(f"resource {self.resource_id} does not exist under {self.root}") from error
        except PermissionError as error:
            raise Conflict(f"{self.directory} belongs to another user; it is left alone") from error
        version = (facts.st_ino, facts.st_mtime_ns)
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._read_marker())
        return self._seen[1]

    def _read_marker(self) -> Marker:
        owner = os.stat(self.directory, follow_symlinks=False)
        with translated(f"reading the marker of {self.directory}"):
            marker = Marker.from_json((self.directory / _MARKER).read_bytes())
        if marker is None or not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.geteuid():
            raise Conflict(f"{self.directory} is not a resource of this user; it is left alone")
        if marker.installation != self.installation or marker.resource_id != self.resource_id:
            raise Conflict(f"resource {self.resource_id} under {self.root} belongs to another installation")
        return marker

    def own_marker(self) -> Marker | None:
        """Return the marker if the resource is there and this installation's, else None."""
        try:
            return self.marker()
        except (Gone, Conflict):
            return None

    def check_epoch(self, epoch: int) -> None:
        """Refuse a holder that has been replaced.

        Raises:
            Refused: the resource knows a newer epoch.
            Gone, Conflict: as for `marker`.
        """
        current = self.marker().epoch
        if epoch < current:
            raise Refused(f"epoch {epoch} of resource {self.resource_id} is over: its holder now has epoch {current}")

    @contextmanager
    def gate(self, epoch: int) -> Iterator[Marker]:
        """Be alone in starting and ending processes of the resource, and know that ``epoch`` is current meanwhile.

        A supervisor is only started inside, and a newer epoch is only noted inside: once a newer holder has noted its
        epoch and ended what ran, nothing of the older one can start.
        """
        with translated(f"locking {self.directory}"):
            try:
                descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise Gone(f"resource {self.resource_id} does not exist under {self.root}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Read after the lock: whoever removed the directory held it.
            self.check_epoch(epoch)
            yield self.marker()
        finally:
            os.close(descriptor)

    def note_epoch(self, epoch: int) -> bool:
        """Write a newer epoch into the marker, inside the gate; say whether it was newer."""
        marker = self.marker()
        if epoch <= marker.epoch:
            return False
        with translated(f"noting the epoch in {self.directory}"):
            _write_atomically(self.directory, _MARKER, attrs.evolve(marker, epoch=epoch).to_json())
        return True

    def remove(self) -> None:
        """Remove the directory, the marker last, so that an interrupted removal is still listed and can be repeated."""
        with translated(f"removing {self.directory}"):
            for name in os.listdir(self.directory):
                if name != _MARKER:
                    remove_tree(self.directory, name)
            remove_tree(self.root, self.resource_id)

    def remove_drafts(self) -> None:
        """Remove what a crash in the middle of `create` left; it was never a resource."""
        prefix = f"{_NEW}{self.resource_id}."
        with translated(f"removing left-overs in {self.root}"):
            for name in self._entries():
                if name.startswith(prefix):
                    remove_tree(self.root, name)

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.root)
        except FileNotFoundError:
            return []

    def make_workspace(self, *, clean: bool) -> Path:
        """Make the workspace if there is none; empty it when it has to be clean."""
        with translated(f"preparing {self.workspace}"):
            self.workspace.mkdir(0o700, exist_ok=True)
            if self.workspace.is_symlink():
                raise Conflict(f"{self.workspace} has been replaced by a link; release the lease")
            for name in os.listdir(self.workspace) if clean else ():
                remove_tree(self.workspace, name)
        return self.workspace


def resource_ids(root: Path) -> list[str]:
    """Return the names under ``root`` that may be resources."""
    with translated(f"listing {root}"):
        try:
            return sorted(name for name in os.listdir(root) if _RESOURCE_ID.fullmatch(name))
        except FileNotFoundError:
            return []


def check_root(config: LocalConfig) -> str | None:
    """Say why ``root`` cannot be trusted as it is now; None when it is fine or not there yet."""
    root = config.root_path()
    try:
        facts = os.stat(root, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(facts.st_mode):
        return f"root {root} is a symbolic link; name the directory itself"
    if not stat.S_ISDIR(facts.st_mode):
        return f"root {root} is not a directory"
    if config.allow_unsafe_root:
        return None
    if facts.st_uid != os.geteuid():
        return f"root {root} is owned by another user (uid {facts.st_uid}); choose one of your own"
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        return f"root {root} is writable by everyone; run chmod o-w on it or choose another"
    return None


def make_root(config: LocalConfig) -> Path:
    """Return the root, made if it was missing.

    Raises:
        InvalidConfig: others could tamper with it.
    """
    root = config.root_path()
    with translated(f"making {root}"):
        try:
            root.mkdir(0o700, parents=True, exist_ok=True)
        except FileExistsError:
            # A file or a dangling link: the check below names it.
            pass
        reason = check_root(config)
    if reason is not None:
        raise InvalidConfig("root", reason)
    return root


def _write_atomically(directory: Path, name: str, data: bytes) -> None:
    draft = directory / f".{name}.{secrets.token_hex(6)}"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        draft.rename(directory / name)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
