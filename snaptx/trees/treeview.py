"""Look at a tree through descriptors: nothing outside it is reached, no link is followed.

Directories are opened beneath the root with openat2 and kept open while they
are in use (at most ``OPEN_DIRECTORIES`` at a time), so paths in sorted order
cost one system call each.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import NamedTuple, Self

from snaptx import chattr
from snaptx.model import Kind
from snaptx.overlay.scan import KINDS, next_data
from snaptx.system import DIRECTORY, INSIDE, birth_ns, descriptor, openat2

OPEN_DIRECTORIES = 128
CHUNK = 256 * 1024

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LONGEST = 4000
_MISSING = -1


class Seen(NamedTuple):
    """What lstat says of one path; sizes in bytes, times in nanoseconds since the epoch."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int

    @property
    def format(self) -> int:
        """Return the type bits of the mode."""
        return stat.S_IFMT(self.mode)

    @property
    def kind(self) -> Kind:
        """Return what the path is."""
        return KINDS[self.format]

    @property
    def is_directory(self) -> bool:
        """Return whether the path is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def length(self) -> int:
        """Return the size in bytes of what carries data, 0 for a directory or device."""
        return self.size if self.format in (stat.S_IFREG, stat.S_IFLNK) else 0


def above(path: bytes) -> bytes:
    """Return the directory that ``path`` is in; b"" is the root."""
    return path.rpartition(b"/")[0]


def joined(directory: bytes, name: bytes) -> bytes:
    """Return the path of ``name`` in ``directory``; b"" is the root."""
    return directory + b"/" + name if directory else name


class TreeView:
    """One tree, from the descriptor of its root directory; paths are relative to it, b"" is itself.

    Methods raise OSError where a path can't be read.  A directory that is
    missing, or a link, makes what is below it absent.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._drop()

    def _drop(self) -> None:
        _, fd = self._open.popitem(last=False)
        if fd != _MISSING:
            os.close(fd)

    def directory(self, path: bytes) -> int:
        """Return a descriptor of a directory; it stays open until many others were asked for."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is None:
            fd = self._opened(path)
            self._open[path] = fd
            if len(self._open) > OPEN_DIRECTORIES:
                self._drop()
        else:
            self._open.move_to_end(path)
        if fd == _MISSING:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return fd

    def _opened(self, path: bytes) -> int:
        flags = DIRECTORY | os.O_NOFOLLOW
        try:
            if len(path) < _LONGEST:
                return openat2(self._root, path, flags, INSIDE)
            directory, _, name = path.rpartition(b"/")
            return openat2(self.directory(directory), name, flags, INSIDE)
        except OSError as error:
            if error.errno in _ABSENT:
                return _MISSING
            raise

    def look(self, path: bytes) -> Seen | None:
        """Return what is at ``path``, None if nothing is."""
        directory, _, name = path.rpartition(b"/")
        try:
            found = os.stat(name or b".", dir_fd=self.directory(directory), follow_symlinks=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return Seen(
            found.st_ino,
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_rdev,
        )

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, in no order."""
        return [os.fsencode(name) for name in os.listdir(self.directory(path))]

    def birth_ns(self, path: bytes) -> int:
        """Return when the inode at ``path`` was made, in nanoseconds since the epoch; 0 if unknown."""
        directory, _, name = path.rpartition(b"/")
        return birth_ns(self.directory(directory), name or b".")

    def open(self, path: bytes) -> int:
        """Open a regular file for reading; the caller closes it."""
        directory, _, name = path.rpartition(b"/")
        return os.open(name, _OPEN_FILE, dir_fd=self.directory(directory))

    def target(self, path: bytes) -> bytes:
        """Return the target of a symbolic link."""
        directory, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.directory(directory))

    def xattrs(self, path: bytes) -> dict[str, bytes]:
        """Return the extended attributes, those of a link itself included."""
        # There is no *xattrat in Python; the magic link leads to the open directory and nowhere else.
        directory, _, name = path.rpartition(b"/")
        place = b"/proc/self/fd/%d/%s" % (self.directory(directory), name or b".")
        names = os.listxattr(place, follow_symlinks=False)
        return {key: os.getxattr(place, key, follow_symlinks=False) for key in names}

    def flags(self, path: bytes) -> int:
        """Return those of chattr(1) that go along with a file or directory."""
        directory, _, name = path.rpartition(b"/")
        with descriptor(name or b".", _OPEN_FILE, dir_fd=self.directory(directory)) as fd:
            return chattr.of(fd) & chattr.CARRIED

    def same_data(self, path: bytes, other: TreeView, other_path: bytes, size: int) -> bool:
        """Return whether two regular files of ``size`` bytes hold the same bytes, in constant memory."""
        one = self.open(path)
        try:
            two = other.open(other_path)
            try:
                return _same_bytes(one, two, size)
            finally:
                os.close(two)
        finally:
            os.close(one)


def _same_bytes(one: int, other: int, size: int) -> bool:
    """Compare two files of ``size`` bytes; what is a hole in both is not read."""
    offset = 0
    while offset < size:
        if size > CHUNK:
            offset = min(next_data(one, offset, size), next_data(other, offset, size))
        data = os.pread(one, CHUNK, offset)
        if data != os.pread(other, CHUNK, offset):
            return False
        if not data:
            break
        offset += len(data)
    return True
