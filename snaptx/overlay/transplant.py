"""Bring one path from one tree into another on the same filesystem, sharing its blocks.

Both trees are reached by descriptors of their roots; no link is followed and
nothing outside them is touched.  The target may be the running root: what takes
the place of something else is made beside it, complete, and renamed.  What
``chattr`` sets is lifted where it would forbid that, and goes along at the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

from snaptx import chattr, system
from snaptx.overlay import scan

FICLONE = 0x40049409
"""linux/fs.h"""

NOFOLLOW = os.O_NOFOLLOW | os.O_NONBLOCK


def transplant(source_fd: int, target_fd: int, path: bytes) -> list[bytes]:
    """Make ``path`` in the target what it is in the source; below a directory nothing changes.

    b"" is the root itself.  Missing parent directories are brought along.
    Returns the paths that were made: those parents, and ``path``.

    Raises:
        OSError: the filesystem refused.
    """
    directory, name = os.path.split(path or b".")
    from_dir = scan.open_directory(source_fd, directory)
    try:
        into_dir, parents = _parent(source_fd, target_fd, directory)
        try:
            _replace(from_dir, into_dir, name)
        finally:
            os.close(into_dir)
    finally:
        os.close(from_dir)
    return [*parents, path]


def uproot(target_fd: int, path: bytes) -> None:
    """Remove ``path``, a directory with everything below it; nothing happens if it is gone."""
    directory, name = os.path.split(path)
    try:
        parent = scan.open_directory(target_fd, directory)
    except FileNotFoundError:
        return
    try:
        with chattr.lifted(parent):
            _remove(parent, name)
    finally:
        os.close(parent)


def _parent(source_fd: int, target_fd: int, directory: bytes) -> tuple[int, list[bytes]]:
    try:
        return scan.open_directory(target_fd, directory), []
    except FileNotFoundError:
        made = transplant(source_fd, target_fd, directory)
        return scan.open_directory(target_fd, directory), made


def _replace(from_dir: int, into_dir: int, name: bytes) -> None:
    st = os.stat(name, dir_fd=from_dir, follow_symlinks=False)
    with chattr.lifted(into_dir):
        if stat.S_ISDIR(st.st_mode) and stat.S_ISDIR(_mode(into_dir, name)):
            with _lifted(into_dir, name):
                _describe(from_dir, name, into_dir, name, st)
        else:
            _make(from_dir, into_dir, name, st)
    if _has_flags(st.st_mode):
        with (
            system.descriptor(name, os.O_RDONLY | NOFOLLOW, dir_fd=from_dir) as source,
            system.descriptor(name, os.O_RDONLY | NOFOLLOW, dir_fd=into_dir) as target,
        ):
            chattr.change(target, chattr.of(source), chattr.KEPT | chattr.NOCOW)


def _make(from_dir: int, into_dir: int, name: bytes, st: os.stat_result) -> None:
    fresh = _beside(name)
    _remove(into_dir, fresh)
    try:
        _create(from_dir, name, into_dir, fresh, st)
        _describe(from_dir, name, into_dir, fresh, st)
        with _lifted(into_dir, name):
            if stat.S_ISDIR(st.st_mode) or stat.S_ISDIR(_mode(into_dir, name)):
                _remove(into_dir, name)
            os.rename(fresh, name, src_dir_fd=into_dir, dst_dir_fd=into_dir)
    except BaseException:
        with suppress(OSError):  # a disk that can't remove it either: the first error says more
            _remove(into_dir, fresh)
        raise


def _beside(name: bytes) -> bytes:
    """Return what ``name`` is called while it is made: always the same, and not too long."""
    return b".snaptx-" + sha256(name).hexdigest()[:16].encode()


def _mode(parent: int, name: bytes) -> int:
    """Return the type and mode of what is there, 0 if nothing is."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _has_flags(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


@contextmanager
def _lifted(parent: int, name: bytes) -> Iterator[None]:
    """Let what is there, if anything, be changed, replaced or removed for the length of a with block."""
    if not _has_flags(_mode(parent, name)):
        yield
        return
    with system.descriptor(name, os.O_RDONLY | NOFOLLOW, dir_fd=parent) as fd, chattr.lifted(fd):
        yield


def _remove(parent: int, name: bytes) -> None:
    with suppress(FileNotFoundError), _lifted(parent, name):
        if not stat.S_ISDIR(_mode(parent, name)):
            os.unlink(name, dir_fd=parent)
            return
        with system.descriptor(name, system.DIRECTORY | os.O_NOFOLLOW, dir_fd=parent) as fd:
            for child in os.listdir(fd):
                _remove(fd, os.fsencode(child))
        os.rmdir(name, dir_fd=parent)


def _create(from_dir: int, name: bytes, into_dir: int, fresh: bytes, st: os.stat_result) -> None:
    if stat.S_ISREG(st.st_mode):
        _clone(from_dir, name, into_dir, fresh)
    elif stat.S_ISDIR(st.st_mode):
        os.mkdir(fresh, 0o700, dir_fd=into_dir)
    elif stat.S_ISLNK(st.st_mode):
        os.symlink(os.readlink(name, dir_fd=from_dir), fresh, dir_fd=into_dir)
    else:
        os.mknod(fresh, stat.S_IFMT(st.st_mode) | 0o600, st.st_rdev, dir_fd=into_dir)


def _clone(from_dir: int, name: bytes, into_dir: int, fresh: bytes) -> None:
    create = os.O_RDWR | os.O_CREAT | os.O_EXCL
    with (
        system.descriptor(name, os.O_RDONLY | NOFOLLOW, dir_fd=from_dir) as source,
        system.descriptor(fresh, create | NOFOLLOW, dir_fd=into_dir) as target,
    ):
        # While it is empty, and what is compressed can't be without copy-on-write.
        chattr.change(target, 0, chattr.COMPRESSED)
        chattr.change(target, chattr.of(source), chattr.NOCOW)
        try:
            fcntl.ioctl(target, FICLONE, source)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
                raise
            while os.sendfile(target, source, None, 1 << 20):
                pass


def _describe(from_dir: int, name: bytes, into_dir: int, made: bytes, st: os.stat_result) -> None:
    """Owner first: it clears set-uid and capabilities; then mode, attributes and times."""
    os.chown(made, st.st_uid, st.st_gid, dir_fd=into_dir, follow_symlinks=False)
    sides = ((from_dir, name), (into_dir, made))
    source, target = (f"/proc/self/fd/{fd}/{os.fsdecode(called)}" for fd, called in sides)
    if not stat.S_ISLNK(st.st_mode):
        os.chmod(made, stat.S_IMODE(st.st_mode), dir_fd=into_dir)
    wanted = {key: os.getxattr(source, key, follow_symlinks=False) for key in _attributes(source)}
    for key in set(_attributes(target)) - set(wanted):
        os.removexattr(target, key, follow_symlinks=False)
    for key, value in wanted.items():
        os.setxattr(target, key, value, follow_symlinks=False)
    times = (st.st_atime_ns, st.st_mtime_ns)
    os.utime(made, ns=times, dir_fd=into_dir, follow_symlinks=False)


def _attributes(path: str) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)
