"""Look at a tree by descriptors and describe every path as a Row.

No link is followed and no other filesystem or subvolume is entered: a nested
subvolume's root (inode 256, its own device number), a mount point and the empty
directory a snapshot shows in place of a nested subvolume (inode 2) have no row.
What the storage has mounted into the tree as a part of it does not count as
another filesystem.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from hashlib import sha256

from snaptx.errors import NotFoundError
from snaptx.model import Kind, Row
from snaptx.mounting import parts_of
from snaptx.overlay import hashing, xattrs
from snaptx.overlay.failure import translate
from snaptx.system import INSIDE, RESOLVE_NO_XDEV, openat2

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 1 << 20
_WORTH_ASKING = 64 << 20
"""Bytes of a file from which on its holes are asked for: ZFS writes out what waits before it tells."""

# linux/btrfs_tree.h: BTRFS_EMPTY_SUBVOL_DIR_OBJECTID, BTRFS_FIRST_FREE_OBJECTID
EMPTY_SUBVOLUME_INODE = 2
SUBVOLUME_INODE = 256
_BLOCK = 512
"""Bytes that st_blocks counts by, stat(2)."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFSOCK: Kind.SOCKET,
}


def open_file(dirfd: int, name: bytes) -> int:
    """Open a regular file for reading without changing its access time and without waiting on a FIFO."""
    try:
        return os.open(name, _READ | os.O_NOATIME, dir_fd=dirfd)
    except PermissionError:
        return os.open(name, _READ, dir_fd=dirfd)


def open_directory(root_fd: int, path: bytes) -> int:
    """Open the directory ``path`` below ``root_fd``; no link, no mount point, nothing outside."""
    rules = INSIDE if parts_of(os.fstat(root_fd).st_dev) else INSIDE | RESOLVE_NO_XDEV
    return openat2(root_fd, path or b".", DIRECTORY, rules)


def hash_file(fd: int, size: int) -> bytes:
    """Return the digest of an open file that is about ``size`` bytes long."""
    if size < CHUNK:
        data = os.read(fd, size + 1)
        if len(data) == size:
            return sha256(data).digest()
        state: hashing.State = sha256(data)
    elif size >= _WORTH_ASKING and os.fstat(fd).st_blocks * _BLOCK < size:
        return _hash_sparse(fd, size)
    else:
        state = hashing.begin(size)
    while data := os.read(fd, CHUNK):
        state.update(data)
    return state.digest()


def _hash_sparse(fd: int, size: int) -> bytes:
    """Hash zeros for each hole instead of having them filled into the page cache."""
    state, offset = hashing.begin(size), 0
    while offset < size:
        start = next_data(fd, offset, size)
        hashing.skip(state, start - offset)
        data = os.pread(fd, min(CHUNK, _next_hole(fd, start, size) - start), start)
        state.update(data)
        if not data:
            break
        offset = start + len(data)
    return state.digest()


def _next_hole(fd: int, offset: int, size: int) -> int:
    return os.lseek(fd, offset, os.SEEK_HOLE) if offset < size else size


def next_data(fd: int, offset: int, size: int) -> int:
    """Return where a file's data goes on from ``offset`` on, ``size`` if all the rest is a hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise


def _row(path: bytes, st: os.stat_result, size: int, content: bytes, attributes: dict[bytes, bytes]) -> Row:
    kind = KINDS[stat.S_IFMT(st.st_mode)]
    device = st.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0
    return Row(
        path, kind, st.st_mode & 0o7777, st.st_uid, st.st_gid, size, st.st_mtime_ns, device,
        content, xattrs.digest(attributes) if attributes else b"", st.st_ino, st.st_ctime_ns,
    )  # fmt: skip


def file_row(dirfd: int, name: bytes, path: bytes) -> Row:
    """Do as `index_row` for what is a regular file, without a look at what it is first.

    The stat comes before the reading: a change while reading leaves a row that no longer matches, never a
    false one.  What else can be opened gets the row of its own kind; OSError where nothing can.
    """
    fd = open_file(dirfd, name)
    try:
        st = os.fstat(fd)
        return _row(path, st, st.st_size, hash_file(fd, st.st_size), xattrs.read(fd))
    finally:
        os.close(fd)


def _directory_row(fd: int, path: bytes) -> Row:
    return _row(path, os.fstat(fd), 0, b"", xattrs.read(fd))


def _node_row(dirfd: int, name: bytes, path: bytes, st: os.stat_result) -> Row:
    attributes = xattrs.read(xattrs.by_name(dirfd, name))
    if not stat.S_ISLNK(st.st_mode):
        return _row(path, st, 0, b"", attributes)
    target = os.readlink(name, dir_fd=dirfd)
    return _row(path, st, len(target), sha256(target).digest(), attributes)


def index_row(dirfd: int, name: bytes, path: bytes) -> Row:
    """Describe ``name`` in the directory ``dirfd``, b"" for that itself; ``path`` is what the row is called.

    A directory's size is 0, a symlink's the length of its target in bytes.
    Raises NotFoundError when there is no such name.
    """
    name = name or b"."
    try:
        st = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        if stat.S_ISREG(st.st_mode):
            return file_row(dirfd, name, path)
        if not stat.S_ISDIR(st.st_mode):
            return _node_row(dirfd, name, path, st)
        fd = os.open(name, DIRECTORY, dir_fd=dirfd)
        try:
            return _directory_row(fd, path)
        finally:
            os.close(fd)
    except FileNotFoundError as err:
        raise NotFoundError(f"{os.fsdecode(path)!r} does not exist", hint="run: snaptx repair") from err
    except OSError as err:
        raise translate(err, path) from err


def is_foreign(st: os.stat_result, root: os.stat_result) -> bool:
    """Return whether a directory lies in another filesystem or subvolume than ``root``, or stands for one."""
    stand_in = st.st_ino == EMPTY_SUBVOLUME_INODE and root.st_ino == SUBVOLUME_INODE
    return (st.st_dev != root.st_dev and st.st_dev not in parts_of(root.st_dev)) or stand_in


def scan_tree(root_fd: int, within: Callable[[bytes], bool] = lambda _: True) -> Iterator[Row]:
    """Yield the row of every path below ``root_fd``, its own (``b""``) first.

    What is not ``within``, and what lies below that, is left out.  One directory
    is open at a time, whatever the depth.  What vanishes during
    the walk of a live tree is left out.
    """
    root = os.fstat(root_fd)
    todo = [b""]
    while todo:
        path = todo.pop()
        try:
            fd = open_directory(root_fd, path)
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                continue
            raise translate(err, path) from err
        try:
            if path == b"" or not is_foreign(os.fstat(fd), root):
                yield _directory_row(fd, path)
                yield from _scan_directory(fd, path, todo, within)
        finally:
            os.close(fd)


def _scan_directory(
    fd: int, path: bytes, todo: list[bytes], within: Callable[[bytes], bool]
) -> Iterator[Row]:
    prefix = path + b"/" if path else b""
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if not within(prefix + name):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(prefix + name)
                continue
            try:
                if entry.is_file(follow_symlinks=False):
                    yield file_row(fd, name, prefix + name)
                else:
                    yield index_row(fd, name, prefix + name)
            except (FileNotFoundError, NotFoundError):
                continue
            except OSError as err:
                raise translate(err, prefix + name) from err
