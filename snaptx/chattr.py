"""What ``chattr`` sets, by descriptor: read, set, and lifted for a while where it forbids a change."""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

# linux/fs.h
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
COMPRESSED = 0x4
FORBIDDING = 0x10 | 0x20
"""IMMUTABLE, APPEND."""
NOCOW = 0x00800000
KEPT = FORBIDDING | 0x8 | 0x40 | 0x80 | 0x10000
"""SYNC, NODUMP, NOATIME, DIRSYNC besides; compression is an attribute as well."""

CARRIED = KEPT | NOCOW
"""What a file takes along into another tree."""

_UNKNOWN = {errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS}


def of(fd: int) -> int:
    """Return the flags of an open file or directory, 0 where the filesystem has none.

    Raises:
        OSError: the filesystem refused.
    """
    try:
        return int(struct.unpack("=l", fcntl.ioctl(fd, GETFLAGS, bytes(8))[:4].ljust(4, b"\0"))[0])
    except OSError as error:
        if error.errno in _UNKNOWN:
            return 0
        raise


def change(fd: int, wanted: int, among: int) -> None:
    """Set those of ``among`` that are ``wanted``, and take the others of them away.

    Raises:
        OSError: the filesystem refused.
    """
    there = of(fd)
    if there & among != wanted & among:
        fcntl.ioctl(fd, SETFLAGS, struct.pack("=q", there & ~among | wanted & among))


@contextmanager
def lifted(fd: int) -> Iterator[None]:
    """Let a file or directory, and what is in it, be changed for the length of a with block."""
    held = of(fd) & FORBIDDING
    change(fd, 0, held)
    try:
        yield
    finally:
        change(fd, held, held)
