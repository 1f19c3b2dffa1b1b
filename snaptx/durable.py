"""Files that are complete or absent after a power cut.

A file is written beside its name, flushed, renamed over it, and the directory
is flushed.  That makes it durable for Linux.  It does *not* make it visible to
GRUB, which never replays a log: for that the storage's barrier is needed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from snaptx.errors import storage_error
from snaptx.system import DIRECTORY, descriptor


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    with descriptor(directory, DIRECTORY) as fd:
        os.fsync(fd)


def read(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        ValueError: it is no regular file: who opens a FIFO waits, and a device may have no end.
        OSError: it can't be read.
    """
    try:
        with descriptor(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as fd:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                with open(fd, "rb", closefd=False) as file:
                    return file.read()
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket can't even be opened
            raise
    raise ValueError(f"{path.name} is no regular file")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def send_off(fd: int) -> None:
    """Begin to write a file to the disk and return at once: what commits next has less to do, or nothing."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # Linux begins to write and drops what is clean


def write_new(path: Path, data: bytes, mode: int = 0o600, *, flush: bool = True, exact: bool = False) -> None:
    """Write ``data`` to ``path``, replacing it, and flush the file (not its name).

    Without ``flush`` a barrier has to follow before anything names the file; until
    then it is on its way to the disk, which spares the barrier the waiting.  With
    ``exact`` the umask takes nothing from ``mode``.

    Raises:
        StorageError: the filesystem refused; nothing is left at ``path``.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        _clear(path)
        with _gone_unless_done(path), descriptor(path, flags, mode) as fd:
            if exact:
                os.fchmod(fd, mode)
            _write_all(fd, data)
            if flush:
                os.fsync(fd)
            else:
                send_off(fd)
    except OSError as error:
        raise storage_error(error, f"cannot write {path.name}") from error


def _clear(path: Path) -> None:
    """Take away what has the name of a file that is to be written, and can't be written as one."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def take_away(path: Path) -> None:
    """Remove a file, if there is one; a directory of its name may be somebody's data, and is set aside."""
    with suppress(FileNotFoundError):
        try:
            path.unlink()
        except IsADirectoryError:
            os.replace(path, unused(path.with_name(f"damaged-{path.name}")))


def replace(path: Path, data: bytes, mode: int = 0o600, *, lasting: bool = True, exact: bool = False) -> None:
    """Put ``data`` at ``path`` in one step that survives a power cut.

    Without ``lasting`` it does once the filesystem commits; until then a power cut leaves what was there.
    ``exact`` as for `write_new`.

    Raises:
        StorageError: the filesystem refused; ``path`` is as it was, or complete and not yet lasting.
    """
    fresh = path.with_name(path.name + ".tmp")
    write_new(fresh, data, mode, exact=exact)
    try:
        with _gone_unless_done(fresh):
            os.replace(fresh, path)
        if lasting:
            sync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, f"cannot replace {path.name}") from error


def numbered(path: Path) -> Iterator[Path]:
    """Yield ``path`` and then it with 1, 2, 3, … after a dot: names for what replaces none of its kind."""
    yield path
    yield from (path.with_name(f"{path.name}.{number}") for number in count(1))


def unused(path: Path) -> Path:
    """Return the first of the ``numbered`` names that nothing has."""
    return next(name for name in numbered(path) if not os.path.lexists(name))


@contextmanager
def _gone_unless_done(path: Path) -> Iterator[None]:
    """Remove ``path`` if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # a disk that can't remove it either: the first error says more
            path.unlink()
        raise


def append(path: Path, data: bytes) -> None:
    """Add ``data`` to the end of ``path`` and flush it; on an error cut off what was written.

    Raises:
        StorageError: the filesystem refused; ``path`` is as it was.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        with descriptor(path, flags) as fd:
            _append_all(fd, data)
    except OSError as error:
        raise storage_error(error, f"cannot append to {path.name}") from error


def _append_all(fd: int, data: bytes) -> None:
    size = os.fstat(fd).st_size
    try:
        _write_all(fd, data)
        os.fsync(fd)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, size)
        raise
