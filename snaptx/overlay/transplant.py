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
_READ = os.O_RDONLY | os.O_NONBLOCK
_AS_IT_IS = os.O_PATH | os.O_NOFOLLOW


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
    with system.descriptor(name, _AS_IT_IS, dir_fd=from_dir) as source:
        st = os.fstat(source)
        with chattr.lifted(into_dir):
            if stat.S_ISDIR(st.st_mode) and stat.S_ISDIR(_mode(into_dir, name)):
                flags = system.DIRECTORY | os.O_NOFOLLOW
                with system.descriptor(name, flags, dir_fd=into_dir) as there, chattr.lifted(there):
                    _describe(source, there, st)
            else:
                _make(source, into_dir, name, st)
        if _has_flags(st.st_mode):
            with (
                system.descriptor(_reach(source), _READ) as readable,
                system.descriptor(name, _READ | os.O_NOFOLLOW, dir_fd=into_dir) as target,
            ):
                chattr.change(target, chattr.of(readable), chattr.CARRIED)


def _make(source: int, into_dir: int, name: bytes, st: os.stat_result) -> None:
    fresh = beside(name)
    _remove(into_dir, fresh)
    try:
        with _created(source, into_dir, fresh, st) as made:
            _describe(source, made, st)
        with _lifted(into_dir, name):
            if stat.S_ISDIR(st.st_mode) or stat.S_ISDIR(_mode(into_dir, name)):
                _remove(into_dir, name)
            os.rename(fresh, name, src_dir_fd=into_dir, dst_dir_fd=into_dir)
    except BaseException:
        with suppress(OSError):  # a disk that can't remove it either: the first error says more
            _remove(into_dir, fresh)
        raise


def beside(name: bytes) -> bytes:
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


@contextmanager
def _created(source: int, into_dir: int, fresh: bytes, st: os.stat_result) -> Iterator[int]:
    """Make the like of ``source`` under a name that nothing has, and give a descriptor of it."""
    if stat.S_ISREG(st.st_mode):
        with system.descriptor(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=into_dir) as made:
            _clone(source, made)
            yield made
        return
    if stat.S_ISDIR(st.st_mode):
        os.mkdir(fresh, 0o700, dir_fd=into_dir)
    elif stat.S_ISLNK(st.st_mode):
        os.symlink(os.readlink(b"", dir_fd=source), fresh, dir_fd=into_dir)
    else:
        os.mknod(fresh, stat.S_IFMT(st.st_mode) | 0o600, st.st_rdev, dir_fd=into_dir)
    with system.descriptor(fresh, _AS_IT_IS, dir_fd=into_dir) as made:
        _require_own(made, st)
        yield made


def _require_own(made: int, st: os.stat_result) -> None:
    """Refuse what the owner of the directory has put in the place of what was made there.

    Raises:
        OSError: it is of another kind, another user's, or has other names.
    """
    found = os.fstat(made)
    is_single = stat.S_ISDIR(found.st_mode) or found.st_nlink == 1
    is_like = stat.S_IFMT(found.st_mode) == stat.S_IFMT(st.st_mode)
    if not (is_like and is_single and found.st_uid == os.geteuid()):
        raise OSError(errno.EPERM, "somebody else changed it meanwhile")


def _clone(source: int, target: int) -> None:
    # While it is empty, and what is compressed can't be without copy-on-write.
    with system.descriptor(_reach(source), _READ) as readable:
        chattr.change(target, 0, chattr.COMPRESSED)
        chattr.change(target, chattr.of(readable), chattr.NOCOW)
        try:
            fcntl.ioctl(target, FICLONE, readable)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
                raise
            while os.sendfile(target, readable, None, 1 << 20):
                pass


def _describe(source: int, made: int, st: os.stat_result) -> None:
    """Owner first: it clears set-uid and capabilities; then mode, attributes and times.

    By descriptors, not by names: whoever owns the directory can put a link to
    any file in the place of a name.
    """
    given, target = _reach(source), _reach(made)
    os.chown(target, st.st_uid, st.st_gid)
    if not stat.S_ISLNK(st.st_mode):
        os.chmod(target, stat.S_IMODE(st.st_mode))
    wanted = {key: os.getxattr(given, key) for key in os.listxattr(given)}
    for key in set(os.listxattr(target)) - set(wanted):
        os.removexattr(target, key)
    for key, value in wanted.items():
        os.setxattr(target, key, value)
    os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))


def _reach(fd: int) -> str:
    """Return a path that leads to what a descriptor is open on, also if that is a link, and never further."""
    return f"/proc/self/fd/{fd}"
