"""The little of the FUSE protocol that it takes to export a few files of fixed size (linux/fuse.h, 7.31)."""

from __future__ import annotations

import struct
from enum import IntEnum

MAJOR, MINOR = 7, 31
ROOT = 1
"""The node of the directory; the files follow."""

MAX_WRITE = 1 << 20
BUFFER = MAX_WRITE + 4096
FOPEN_KEEP_CACHE = 1 << 1
INIT_FLAGS = (1 << 0) | (1 << 5) | (1 << 22)
"""FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_MAX_PAGES: and no write-back cache, so a write is sent at once."""

PUNCH_HOLE = 2
"""FALLOC_FL_PUNCH_HOLE, linux/falloc.h."""
ZERO_RANGE = 16

HEADER = struct.Struct("<IIQQIIIHH")
REPLY = struct.Struct("<IiQ")
READ = struct.Struct("<QQII")
WRITE = struct.Struct("<QQIIQII")
FALLOCATE = struct.Struct("<QQQII")
NAME_VALID = 3600


class Op(IntEnum):
    """The requests that are answered; others get ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43


def init_reply(readahead: int) -> bytes:
    """Return the answer to INIT."""
    fields = (MAJOR, MINOR, readahead, INIT_FLAGS, 16, 12, MAX_WRITE, 1, MAX_WRITE // 4096, 0, 0)
    return struct.pack("<IIIIHHIIHHI", *fields).ljust(64, b"\0")


def attributes(node: int, size: int) -> bytes:
    """Return struct fuse_attr for the directory or a file of ``size`` bytes."""
    mode, links = (0o040700, 2) if node == ROOT else (0o100600, 1)
    times = (0, 0, 0, 0, 0, 0)
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, *times, mode, links, 0, 0, 0, 4096, 0)


def attr_reply(node: int, size: int) -> bytes:
    """Return the answer to GETATTR and SETATTR."""
    return struct.pack("<QII", NAME_VALID, 0, 0) + attributes(node, size)


def entry_reply(node: int, size: int) -> bytes:
    """Return the answer to LOOKUP."""
    return struct.pack("<QQQQII", node, 0, NAME_VALID, NAME_VALID, 0, 0) + attributes(node, size)


def open_reply() -> bytes:
    """Return the answer to OPEN and OPENDIR."""
    return struct.pack("<QII", 0, FOPEN_KEEP_CACHE, 0)


def statfs_reply() -> bytes:
    """Return the answer to STATFS: nothing worth knowing."""
    return struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0).ljust(80, b"\0")
