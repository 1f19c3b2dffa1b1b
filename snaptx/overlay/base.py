"""What the base holds, as its index says and as the live base directory confirms.

A path of the base counts as known when its row in the forked manifest and a
``stat`` of the live base agree on inode, ctime, size and device.  The snapshot
was taken after the index and before that ``stat``, so the snapshot holds the
same.  Reading happens in the live base because its pages are in memory and the
snapshot's are not; nothing is ever written there.
"""

from __future__ import annotations

import os
from typing import Any

from snaptx.errors import HostileError
from snaptx.model import Kind, Member, Row
from snaptx.overlay import xattrs
from snaptx.overlay.manifest import Manifest, to_row
from snaptx.overlay.resolve import Beneath
from snaptx.overlay.scan import open_file
from snaptx.system import INSIDE, openat2

_FILE = Kind.FILE


def same_inode(st: os.stat_result, row: Row) -> bool:
    """Return whether ``st`` is the very inode, unmodified, that ``row`` describes."""
    return st.st_ino == row.inode and st.st_ctime_ns == row.ctime_ns


def same_metadata(row: Row, member: Member) -> bool:
    """Return whether kind, size, mode, owner, mtime and attributes are what ``member`` asks for.

    A member that carries an SELinux label never is: labels are in no index.
    """
    return (
        row.kind is member.kind
        and row.mtime_ns == member.mtime_ns
        and (row.mode == member.mode or member.kind is Kind.SYMLINK)
        and row.uid == member.uid
        and row.gid == member.gid
        and row.xattrs == (xattrs.digest(member.xattrs) if member.xattrs else b"")
        and xattrs.LABEL not in member.xattrs
    )


def open_base(fd: int, row: Row) -> int | None:
    """Open the file ``row`` describes in the live base ``fd``, None if it is gone or changed meanwhile."""
    head, _, name = row.path.rpartition(b"/")
    try:
        parent = openat2(fd, head or b".", os.O_PATH | os.O_DIRECTORY, INSIDE)
        try:
            found = open_file(parent, name)
        finally:
            os.close(parent)
    except OSError:
        return None
    if same_inode(os.fstat(found), row):
        return found
    os.close(found)
    return None


class Ahead:
    """Looks rows up in a manifest at rest, and reads ahead as far as that has been of use.

    A payload names its paths nearly in the order of the index, and a row that is read along costs a
    fifth of one that is asked for.
    """

    MOST = 256

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._window: dict[bytes, tuple[Any, ...]] = {}
        self._first, self._last = b"\xff", b""
        self._size, self._used = 1, 0

    def get(self, path: bytes) -> Row | None:
        """Return the row of one path, or None."""
        found = self.values(path)
        try:
            return None if found is None else to_row(found)
        except (KeyError, TypeError) as err:
            raise self._manifest.failure(err) from err

    def values(self, path: bytes) -> tuple[Any, ...] | None:
        """Do as `get`, but leave the row as the manifest has it: making one takes longer than to look."""
        if not self._first <= path <= self._last:
            self._move(path)
        found = self._window.get(path)
        if found is not None:
            self._used += 1
        return found

    def _move(self, path: bytes) -> None:
        """Begin a window at ``path``: twice the last one if half of that was of use, else half of it."""
        useful = self._used * 2 >= self._size
        self._size = min(self._size * 2, self.MOST) if useful else max(self._size // 2, 1)
        rows = self._manifest.following(path, self._size)
        self._window = {row[0]: row for row in rows}
        self._first, self._last, self._used = path, rows[-1][0] if rows else path, 0


class Base:
    """The base generation: its index and its live directory ``fd``, which stays the caller's."""

    def __init__(self, fd: int, manifest: Manifest) -> None:
        self._fd = fd
        self._manifest = manifest
        self._index = Ahead(manifest)
        self._device = os.fstat(fd).st_dev
        self._beneath = Beneath(fd)
        self._alias = (b"", b"")
        self._absent = b"/"

    def close(self) -> None:
        """Release all descriptors."""
        self._beneath.close()

    def has(self, member: Member, digest: bytes) -> bool:
        """Return whether the base holds a file or directory without attributes just as ``member`` asks.

        ``digest`` is that of the content.  Most of a payload is so: one comparison is enough to tell.
        """
        path, kind, mode, uid, gid, mtime_ns, size, _, _, attributes, _, _ = member
        if attributes or path.startswith(self._absent):
            return False
        found = self._index.values(path)
        if found is None or found[:-2] != (path, kind, mode, uid, gid, size, mtime_ns, 0, digest, b""):
            return False
        return self._is_live(path, size if kind is _FILE else None, found[-2:])

    def row(self, path: bytes) -> Row | None:
        """Return the index's row of ``path`` if the live base still is what it says."""
        row = None if path.startswith(self._absent) else self._index.get(path)
        if row is None:
            return None
        return row if self._is_live(path, row.size if row.kind is _FILE else None, row[-2:]) else None

    def find(self, path: bytes) -> Row | None:
        """Do as ``row``, also where symlinks of the base lie on the way; the row has the real path."""
        if path.startswith(self._absent):
            return None
        row = self.row(path)
        if row is not None:
            return row
        head, slash, name = path.rpartition(b"/")
        if head != self._alias[0]:
            self._alias = (head, self._real(head))
        real = self._alias[1]
        return None if real == head else self.row(real + slash + name if real else name)

    def _real(self, directory: bytes) -> bytes:
        """Return the path of a directory without symlinks; its own if there is no such directory."""
        row = self._manifest.get(directory)
        if row is not None and row.kind is Kind.DIRECTORY:
            return directory
        try:
            return self._beneath.directory(directory).path
        except FileNotFoundError:
            self._absent = self._topmost(directory) + b"/"
            return directory
        except HostileError:
            return directory

    def _topmost(self, directory: bytes) -> bytes:
        """Return the first directory on the way to a missing one that is missing: all below it is new."""
        while True:
            head = directory.rpartition(b"/")[0]
            try:
                self._beneath.directory(head)
            except FileNotFoundError:
                directory = head
            except HostileError:
                return directory
            else:
                return directory

    def _is_live(self, path: bytes, size: int | None, identity: tuple[int, ...]) -> bool:
        """Return whether the live base still has that inode and ctime (ns) there, and a file of that size."""
        try:
            st = os.stat(path, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        sized = size is None or st.st_size == size
        return sized and st.st_dev == self._device and (st.st_ino, st.st_ctime_ns) == identity

    def open(self, row: Row) -> int | None:
        """Open the file ``row`` describes, None if it is gone or changed meanwhile."""
        return open_base(self._fd, row)
