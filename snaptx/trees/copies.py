"""Copies of trees, and whether one is faithful; what both share on disk is not read for that.

``FIEMAP`` tells where a file's bytes lie: a file that was cloned as a whole lies
where its source lies.  Only what lies elsewhere, or inside the metadata, is
read and compared.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from snaptx import run, system
from snaptx.errors import SPACE_HINT, CommandError, NoSpaceError, storage_error
from snaptx.trees.treeview import Seen, TreeView, joined

FS_IOC_FIEMAP = 0xC020660B
FLAG_SYNC, EXTENT_LAST = 0x1, 0x1
NOWHERE = 0x2 | 0x4 | 0x200 | 0x400
"""linux/fiemap.h: UNKNOWN, DELALLOC, DATA_INLINE, DATA_TAIL."""

HEADER = struct.Struct("=QQLLLL")
EXTENT = struct.Struct("=QQQ16xL12x")
AT_ONCE = 256


def clone(source: Path, target: Path) -> None:
    """Copy a directory with all that is known about it into another, sharing its blocks; mounts are left out.

    Raises:
        NoSpaceError: the filesystem or a quota is full.
        CommandError: cp(1) failed otherwise.
    """
    words = ["cp", "--archive", "--reflink=auto", "--one-file-system", "--no-target-directory", "--"]
    try:
        run.run([*words, system.seen_by_others(source), system.seen_by_others(target)])
    except CommandError as error:
        if "No space left" in error.message or "quota" in error.message:
            raise NoSpaceError(error.message, hint=SPACE_HINT) from error
        raise


def extents(fd: int, size: int) -> list[tuple[int, int, int]] | None:
    """Return (logical, physical, length) in bytes of a file's extents, None if they have no place."""
    found: list[tuple[int, int, int]] = []
    start = 0
    while start < size:
        request = HEADER.pack(start, size - start, FLAG_SYNC, 0, AT_ONCE, 0)
        answer = bytearray(request + bytes(EXTENT.size * AT_ONCE))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, answer)
        count = HEADER.unpack_from(answer)[3]
        for index in range(count):
            logical, physical, length, flags = EXTENT.unpack_from(answer, HEADER.size + index * EXTENT.size)
            if flags & NOWHERE:
                return None
            found.append((logical, physical, length))
            start = logical + length
            if flags & EXTENT_LAST:
                return found
        if not count:
            break
    return found


def unlike(source_fd: int, copy_fd: int) -> Iterator[bytes]:
    """Yield every path that differs between a tree at rest and its copy, b"" being the root.

    Compared are type, mode, owner, size, times of modification, content,
    link targets, attributes (so ACLs as well) and which names are one file.

    Raises:
        StorageError: a tree can't be read.
    """
    try:
        with TreeView(source_fd) as source, TreeView(copy_fd) as copy:
            yield from _unlike(source, copy)
    except OSError as error:
        raise storage_error(error, "cannot compare the copy") from error


def _unlike(source: TreeView, copy: TreeView) -> Iterator[bytes]:
    waiting, firsts = [b""], dict[int, int]()
    while waiting:
        path = waiting.pop()
        one, other = source.look(path), copy.look(path)
        if one is None or other is None or not _same(source, copy, path, one, other):
            yield path
        elif one.is_directory:
            names = {name for view in (source, copy) for name in view.names(path)}
            waiting.extend(joined(path, name) for name in names)
        elif firsts.setdefault(one.inode, other.inode) != other.inode:
            yield path


def _same(source: TreeView, copy: TreeView, path: bytes, one: Seen, other: Seen) -> bool:
    if (one.mode, one.uid, one.gid, one.mtime_ns) != (other.mode, other.uid, other.gid, other.mtime_ns):
        return False
    if source.xattrs(path) != copy.xattrs(path):
        return False
    match one.format:
        case stat.S_IFREG:
            return one.size == other.size and _same_content(source, copy, path, one.size)
        case stat.S_IFLNK:
            return source.target(path) == copy.target(path)
        case stat.S_IFCHR | stat.S_IFBLK:
            return one.device == other.device
    return True


def _same_content(source: TreeView, copy: TreeView, path: bytes, size: int) -> bool:
    return _same_place(source, copy, path, size) or source.same_data(path, copy, path, size)


def _same_place(source: TreeView, copy: TreeView, path: bytes, size: int) -> bool:
    one = source.open(path)
    try:
        other = copy.open(path)
        try:
            lies = extents(one, size)
            return bool(lies) and lies == extents(other, size)
        except OSError:
            return False  # it can't say; then the bytes decide
        finally:
            os.close(other)
    finally:
        os.close(one)
